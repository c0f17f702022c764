"""Tapped networks return the activations of layers without changing later layers."""

import pytest
import torch
from torch import nn

from tlcli.backbones.cut_points import trace_backbone
from tlcli.backbones.zoo import load_backbone
from tlcli.insight.activation_taps import choose_taps
from tlcli.insight.units.tapped_network import tapped_network


@pytest.mark.parametrize("layer", ["1", "18"])
def test_tapped_relu6_is_unlimited_but_passes_limited_values_on(layer):
    backbone = load_backbone("tf_efficientnet_lite0", "none", classes=2, size=64)
    norm = backbone.model.bn1 if layer == "1" else backbone.model.bn2
    nn.init.constant_(norm.bias, 5.0)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tap, last = choose_taps(backbone, (layer,))[0], choose_taps(backbone, ("17",))[0]
    limited = []
    norm.register_forward_hook(lambda module, given, value: limited.append(value))
    with torch.no_grad():
        unlimited, later = tapped_network(backbone.model, trace_backbone(backbone), [tap, last])(images)
        (alone,) = tapped_network(backbone.model, trace_backbone(backbone), [last])(images)
    assert unlimited.max() > 6
    assert limited[0].max() == 6
    assert torch.equal(unlimited.clamp(max=6), limited[0])
    assert torch.equal(later, alone)
