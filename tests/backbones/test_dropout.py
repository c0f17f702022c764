"""Dropout and stochastic depth are active only in the tail in train mode."""

import pytest
import torch
from cut_networks import CLASSES, check_cut, images, layer_count, load, parameters
from torch import nn

from tlcli.backbones.build import build_backbone, pretrained_config
from tlcli.backbones.cut import cut_at

DROP_RATES = [
    ("vit_tiny_patch16_224", 64, "drop_rate"),
    ("vit_tiny_patch16_224", 64, "drop_path_rate"),
    ("eva02_tiny_patch14_224", 56, "drop_path_rate"),
    ("swin_tiny_patch4_window7_224", 112, "drop_rate"),
    ("swin_tiny_patch4_window7_224", 112, "drop_path_rate"),
    ("maxvit_pico_rw_256", 64, "drop_path_rate"),
    ("convnext_atto", 64, "drop_rate"),
    ("convnext_atto", 64, "drop_path_rate"),
    ("tf_efficientnet_lite0", 64, "drop_rate"),
    ("tf_efficientnet_lite0", 64, "drop_path_rate"),
    ("ghostnet_050", 64, "drop_rate"),
    ("densenet121", 64, "drop_rate"),
    ("resnet18", 64, "drop_path_rate"),
]


def test_dropout_is_active_only_in_the_tail_in_train_mode():
    backbone = load("torchvision/alexnet", 64)
    cut = cut_at(backbone, "classifier.1")
    inputs = images(backbone)
    features = cut.prefix.train()(inputs)
    assert torch.equal(features, cut.prefix(inputs))
    assert torch.equal(cut.tail(features), cut.tail(features))
    cut.tail.train()
    assert not torch.equal(cut.tail(features), cut.tail(features))
    # the dropout after the pooling is not frozen with it
    before = cut_at(backbone, "5")
    before.tail.train()
    assert not torch.equal(before.tail(before.prefix(inputs)), before.tail(before.prefix(inputs)))


def load_with_rates(name, size, **rates):
    backbone = build_backbone(name, pretrained_config(name), classes=CLASSES, size=size, arguments=rates)
    for module in backbone.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # residual branches often start at zero, so dropping them would change nothing
    return backbone


def is_deterministic(module, features):
    """Return whether several passes give the same output, bit for bit."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(4)
        first = module(features)
        return all(torch.equal(module(features), first) for _ in range(4))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "rate"), parameters(DROP_RATES))
def test_dropout_and_stochastic_depth_are_active_only_in_the_tail_in_train_mode(name, size, rate):
    backbone = load_with_rates(name, size, **{rate: 0.5})
    of = layer_count(backbone)
    # There is no stochastic depth after the last layer.
    for freeze in ("1", str(of // 2)) if rate == "drop_path_rate" else (str(of // 2), str(of), "all"):
        cut = cut_at(backbone, freeze)
        inputs = images(backbone)
        for module in (cut.prefix, cut.tail, backbone.model):
            module.train()
        assert is_deterministic(cut.prefix, inputs)
        features = cut.prefix(inputs)
        assert not is_deterministic(cut.tail, features)
        cut.tail.eval()
        assert is_deterministic(cut.tail, features)
        backbone.model.eval()
        assert torch.equal(cut.tail(features), backbone.model(inputs))


def test_the_tail_in_train_mode_uses_the_current_dropout_rate_of_its_modules():
    backbone = load_with_rates("vit_tiny_patch16_224", 64, drop_rate=0.5)
    cut = cut_at(backbone, "6")
    features = cut.prefix(images(backbone))
    cut.tail.train()
    for rate in (0.0, 0.5, 0.0):
        for module in cut.tail.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate
        assert is_deterministic(cut.tail, features) == (rate == 0)


def test_functional_dropout_follows_the_mode_of_the_tail():
    backbone = load("ghostnet_050", 64)
    backbone.model.drop_rate = 0.5
    for freeze in ("9", "all"):
        cut = check_cut(backbone, freeze)
        features = cut.prefix(images(backbone))
        assert is_deterministic(cut.tail, features)
        assert not is_deterministic(cut.tail.train(), features)
        cut.tail.eval()
