"""The head of a network: setting it, twins, and other sizes."""

import pytest
import torch
from cut_networks import CLASSES, images, load
from torch import nn

from tlcli.backbones.cut import cut_at
from tlcli.backbones.heads import head_modules, set_head
from tlcli.errors import UsageError


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 64), ("resnetv2_50", 64), ("deit_tiny_distilled_patch16_224", 64), ("levit_128s", None)],
)
def test_a_head_fitted_on_features_is_the_head_of_the_network(name, size):
    backbone = load(name, size)
    cut = cut_at(backbone, "all")
    weight = torch.randn(CLASSES, *cut.feature_shape, generator=torch.Generator().manual_seed(3))
    bias = torch.arange(float(CLASSES))
    set_head(backbone.model, weight, bias)
    inputs = images(backbone)
    with torch.no_grad():
        features = cut.prefix(inputs)
        logits = nn.functional.linear(features, weight, bias)
        torch.testing.assert_close(cut.tail(features), logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(backbone.model(inputs), logits, rtol=1e-5, atol=1e-5)


def test_twin_heads_are_two_modules():
    assert len(head_modules(load("deit_tiny_distilled_patch16_224", 64).model)) == 2


def test_a_head_of_another_size_is_refused():
    with pytest.raises(UsageError, match=r"\[3, 512"):
        set_head(load("resnet18", 64).model, torch.zeros(3, 5), torch.zeros(3))
