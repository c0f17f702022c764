"""Receptive fields compared with the spread of NaNs: a NaN in a row of pixels reaches exactly what depends on it."""

import pytest
import torch

from tlcli.backbones.cut_points import trace_backbone
from tlcli.backbones.layer_table import layer_table
from tlcli.backbones.receptive_field import track_receptive_fields
from tlcli.backbones.zoo import load_backbone


def rows_that_reach_the_middle(backbone, row):
    """Count the rows of pixels that change the middle row of a map."""
    spec = backbone.input
    traced = trace_backbone(backbone)
    graph = torch.fx.Graph()
    copied = {}
    for node in traced.graph.nodes:
        copied[node] = graph.node_copy(node, copied.__getitem__)
        if node is traced.layers[row].end:
            graph.output(copied[node])
            break
    prefix = torch.fx.GraphModule(backbone.model, graph)
    image = torch.zeros(spec.height, spec.channels, spec.height, spec.width)
    for index in range(spec.height):
        image[index, :, index] = float("nan")
    with torch.no_grad():
        maps = torch.cat([prefix(part) for part in image.split(32)])
    middle = maps[:, :, maps.shape[2] // 2]
    return int(middle.isnan().flatten(1).any(1).sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "rows"),
    [
        ("tf_efficientnet_lite0", 96, (0, 2, 3, 4)),
        ("resnet18", 96, (0, 1, 3)),
        ("convnext_atto", 96, (0, 1, 2)),
        ("lenet5", None, (0,)),
        ("inception_v3", 107, (0, 2, 4)),
    ],
)
def test_the_receptive_field_is_what_a_nan_reaches(name, size, rows):
    backbone = load_backbone(name, "none", classes=2, size=size)
    table = layer_table(backbone)
    for row in rows:
        assert table.layers[row].receptive_field == rows_that_reach_the_middle(backbone, row), table.layers[row].name


def test_squeeze_and_excitation_depends_on_the_whole_image():
    backbone = load_backbone("mobilenetv3_small_050", "none", classes=2, size=96)
    assert layer_table(backbone).layers[1].receptive_field == 96 == rows_that_reach_the_middle(backbone, 1)


class InPlaceList(torch.nn.Module):
    """Writes into the list that it gets, as the stages of HRNet do."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3)

    def forward(self, maps):
        maps[0] = self.conv(maps[0])
        return maps[0] + maps[1]


def test_modules_may_write_into_their_input_lists():
    model = torch.nn.Module()
    model.stage = InPlaceList()
    graph = torch.fx.Graph()
    image = graph.placeholder("image")
    stage = graph.call_module("stage", ([image, 1.0],))
    graph.output(stage)
    assert track_receptive_fields(model, graph, (1, 3, 9, 9)).fields[stage] is not None
