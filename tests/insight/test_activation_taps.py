"""Taps select the right layers and arrange their units as maps."""

import pytest
import torch

from tlcli.backbones.zoo import load_backbone
from tlcli.insight.activation_taps import choose_taps


def test_default_layers_are_spread_from_first_to_last():
    taps = choose_taps(load_backbone("tf_efficientnet_lite0", "none", classes=2), ())
    assert [tap.layer.number for tap in taps] == [1, 5, 9, 14, 18]
    assert taps[-1].layout.map_size == (7, 7)  # the maps before pooling


@pytest.mark.slow
def test_tokens_become_maps_in_reading_order():
    backbone = load_backbone("vit_tiny_patch16_224", "none", classes=2, size=64)
    tap = choose_taps(backbone, ("blocks.3",))[0]
    tokens = torch.arange(17.0)[None, :, None].expand(1, 17, 192)
    assert tap.layout.to_maps(tokens)[0, 0].tolist() == torch.arange(1.0, 17.0).reshape(4, 4).tolist()
