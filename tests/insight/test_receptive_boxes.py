"""Boxes match gradients: no pixel outside a box affects its position, and the box is no larger than necessary."""

import pytest
import torch
from torch import nn

from tlcli.backbones.cut_points import trace_backbone
from tlcli.backbones.zoo import load_backbone
from tlcli.insight.activation_taps import choose_taps
from tlcli.insight.receptive_boxes import ReceptiveBoxes
from tlcli.insight.units.tapped_network import tapped_network


def gradient_box(network, tap, spec, row, column):
    """Return the bounds [x0, y0, x1, y1) of the pixels that affect a position, over all units."""
    generator = torch.Generator().manual_seed(row + column)
    images = torch.randn(4, spec.channels, spec.height, spec.width, generator=generator).requires_grad_()
    maps = tap.layout.to_maps(network(images)[0])
    (gradient,) = torch.autograd.grad(maps[:, :, row, column].square().sum() + maps[:, :, row, column].sum(), images)
    rows, columns = (gradient.abs().sum((0, 1)).sum(axis).nonzero().flatten() for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def clipped(box, spec):
    return max(box[0], 0), max(box[1], 0), min(box[2], spec.width), min(box[3], spec.height)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [
        ("lenet5", None, ("1", "2")),
        ("torchvision/alexnet", 224, ("1", "2", "3")),
        ("vgg11", 96, ("1", "2", "4", "6")),
        ("resnet18", 96, ("1", "2", "4")),
        ("tf_efficientnet_lite0", 96, ("1", "3", "5")),
        ("convnext_atto", 96, ("1", "2")),
        ("mobilenetv2_050", 64, ("1", "3", "6")),
        ("regnetx_002", 96, ("1", "2", "4", "6")),
        ("densenet121", 64, ("1", "3")),
        ("inception_v3", 107, ("1", "5")),  # a size at which its strides leave no remainder
    ],
)
def test_a_box_contains_exactly_the_pixels_with_a_gradient(name, size, layers):
    backbone = load_backbone(name, "none", classes=2, size=size)
    for module in backbone.model.modules():  # some networks initialize branches to zero
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    spec = backbone.input
    for tap in choose_taps(backbone, layers):
        network = tapped_network(backbone.model, trace_backbone(backbone), [tap])
        height, width = tap.boxes.map_size
        for row, column in {(0, 0), (height // 2, width // 2), (height - 1, width - 1), (0, width - 1)}:
            box = clipped(tap.boxes.box(row, column), spec)
            assert gradient_box(network, tap, spec, row, column) == box, (tap.layer.name, row, column)


def test_boxes_of_the_first_layer_match_manual_values():
    """AlexNet's first convolution is 11 x 11 with stride 4 and padding 2, followed by 3 x 3 pooling with stride 2."""
    tap = choose_taps(load_backbone("torchvision/alexnet", "none", classes=2), ("1",))[0]
    assert tap.layout.units == 64
    assert tap.boxes.box(0, 0) == (-2, -2, 17, 17)
    assert tap.boxes.box(1, 3) == (22, 6, 41, 25)


@pytest.mark.slow
def test_attention_sees_the_whole_input():
    backbone = load_backbone("vit_tiny_patch16_224", "none", classes=2, size=64)
    first, last = choose_taps(backbone, ("1", "blocks.11"))
    assert first.layout.map_size == last.layout.map_size == (4, 4)
    assert last.layout.units == 192
    assert last.boxes.box(1, 2) == (0, 0, 64, 64)
    assert last.boxes.cell(1, 2) == (32, 16, 48, 32)
    assert last.boxes.covers_input((0, 0, 64, 64))


def test_a_vector_has_no_positions():
    boxes = ReceptiveBoxes(input_size=(32, 32), map_size=(1, 1), field=None)
    assert boxes.cell(0, 0) is None
    assert boxes.box(0, 0) == (0, 0, 32, 32)
