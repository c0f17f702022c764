import pytest
import torch
from timm.layers.blur_pool import BlurPool2d
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from tlcli.backbones.convolution_arithmetic import Window, window_of


def test_ten_filters_of_3x3x3_have_280_parameters():
    assert sum(p.numel() for p in nn.Conv2d(3, 10, 3).parameters()) == 280


def test_an_edge_filter_gives_30_on_a_bright_to_dark_edge():
    image = torch.tensor([[10.0, 10, 10, 0, 0, 0]] * 6)[None, None]
    edge = torch.tensor([[1.0, 0, -1]] * 3)[None, None]
    expected = torch.tensor([[0.0, 30, 30, 0]] * 4)[None, None]
    assert torch.equal(nn.functional.conv2d(image, edge), expected)
    assert Window(kernel=(3, 3)).output_size(6) == 4


def test_7x7_by_3x3_with_stride_2_gives_3x3():
    assert Window(kernel=(3, 3), stride=(2, 2)).output_size(7) == 3


def test_a_dense_layer_has_14_million_weights_and_the_convolution_456_parameters():
    with torch.device("meta"):
        dense, convolution = nn.Linear(32 * 32 * 3, 28 * 28 * 6), nn.Conv2d(3, 6, 5)
    assert dense.weight.numel() == 14_450_688
    assert sum(parameter.numel() for parameter in convolution.parameters()) == 456
    assert Window(kernel=(5, 5)).output_size(32) == 28


def test_formula_as_text():
    assert Window(kernel=(11, 11), stride=(4, 4), before=(2, 2), after=(2, 2)).formula(224) == (
        "floor((224 + 2*2 - 11) / 4) + 1 = 55"
    )


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.Conv2d(2, 3, (5, 3), stride=(1, 2), padding=(2, 0), dilation=(2, 1)),
        nn.Conv2d(2, 3, 4, padding="same"),
        Conv2dSame(2, 3, 5, stride=2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AvgPool2d(3, 3, 1, ceil_mode=True),
        MaxPool2dSame(3, 2),
        BlurPool2d(2, 3, 2),
    ],
    ids=repr,
)
@pytest.mark.parametrize("size", [(14, 14), (15, 16), (17, 13)])
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_output_size_equals_that_of_torch(module, size):
    window = window_of(module, size)
    shape = module(torch.zeros(1, 2, *size)).shape[2:]
    assert (window.output_size(size[0], 0), window.output_size(size[1], 1)) == tuple(shape)


def test_asymmetric_padding_shows_both_sides():
    window = window_of(Conv2dSame(3, 8, 3, stride=2), (224, 224))
    assert window.padding == (0, 1, 0, 1)
    assert window.formula(224) == "floor((224 + 0 + 1 - 3) / 2) + 1 = 112"
