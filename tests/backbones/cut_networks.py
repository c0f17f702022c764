"""Networks with random weights, and what must hold of every cut."""

import pytest
import torch
from torch import nn

from tlcli.backbones.build import build_backbone, pretrained_config
from tlcli.backbones.cut import cut_at
from tlcli.backbones.heads import head_modules
from tlcli.backbones.zoo import load_backbone

FAMILIES = [
    ("vgg11", 32),
    ("resnet18", 64),
    ("tf_efficientnet_lite0", 64),
    ("densenet121", 64),
    ("convnext_atto", 64),
    ("swin_tiny_patch4_window7_224", 112),
    ("vit_tiny_patch16_224", 96),
    ("regnety_002", 64),
    ("mobilenetv3_small_050", 64),
    ("efficientnetv2_rw_t", 64),
]
KINDS = [
    *FAMILIES,
    ("torchvision/alexnet", 64),
    ("resnetv2_50", 64),
    ("dla34", 64),
    ("hgnetv2_b0", 64),
    ("repvgg_a0", 64),
    ("ghostnet_050", 64),
    ("mixnet_s", 64),
    ("mobilenetv4_conv_small", 64),
    ("inception_v3", 107),
    ("mobilevit_xxs", 64),
    ("maxvit_pico_rw_256", 64),
    ("deit_tiny_patch16_224", 64),
    ("deit_tiny_distilled_patch16_224", 64),
    ("vit_small_patch14_dinov2", 56),
    ("eva02_tiny_patch14_224", 56),
    ("xcit_nano_12_p16_224", 64),
    ("mixer_s32_224", None),
]
ARGUMENTS = {"vgg11": {"mlp_ratio": 0.05}}
"""Arguments that leave out most of the hundred million weights after the maps of a plain network."""
CLASSES = 3
QUICK = {
    "lenet5",
    "resnet18",
    "tf_efficientnet_lite0",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "mobilenetv3_small_050",
}
"""Networks that `make test` tries; `make test-slow` tries the others."""


def parameters(rows):
    """Name each row after its network, and mark all but a few networks as slow."""
    marks = [() if name in QUICK else pytest.mark.slow for name, *_ in rows]
    return [
        pytest.param(*row, id="-".join([row[0], *row[2:]]), marks=mark) for row, mark in zip(rows, marks, strict=True)
    ]


def load(name, size=None, weights="none"):
    """Load a network with random weights and random BatchNorm statistics."""
    if name in ARGUMENTS:
        backbone = build_backbone(name, pretrained_config(name), classes=CLASSES, size=size, arguments=ARGUMENTS[name])
    else:
        backbone = load_backbone(name, weights, classes=CLASSES, size=size)
    generator = torch.Generator().manual_seed(1)
    for module in backbone.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return backbone


def images(backbone, count=2):
    spec = backbone.input
    shape = (count, spec.channels, spec.height, spec.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def layer_count(backbone):
    return cut_at(backbone, "none").of


def check_cut(backbone, freeze):
    """Check that a cut keeps the output of the network, and that training changes all of the tail and nothing else."""
    inputs = images(backbone)
    first, *twins = head_modules(backbone.model)
    twins = twins if freeze == "all" else []
    for twin in twins:
        twin.load_state_dict(first.state_dict())  # as `reset_head` leaves them
    with torch.no_grad():
        expected = backbone.model(inputs)
        cut = cut_at(backbone, freeze)
        features = cut.prefix(inputs)
        found = cut.tail(features)
    if twins:
        torch.testing.assert_close(found, expected)  # the feature is the mean of the inputs of both
    else:
        assert torch.equal(found, expected)
    assert features.shape[1:] == cut.feature_shape
    check_training(backbone, cut, inputs, features)
    cut.tail.eval()
    trained = {id(parameter) for parameter in cut.tail.parameters()}
    frozen = {id(parameter) for parameter in cut.prefix.parameters()}
    assert trained.isdisjoint(frozen)
    assert trained | frozen == {id(parameter) for parameter in backbone.model.parameters()}
    return cut


def check_training(backbone, cut, inputs, features):
    """Train for two steps, calling train() on every module before each."""
    prefix, tail = ({key: value.clone() for key, value in part.state_dict().items()} for part in (cut.prefix, cut.tail))
    backbone.model.zero_grad()  # of the tail of another cut
    optimizer = torch.optim.SGD(cut.tail.parameters(), lr=1e-6)
    for _ in range(2):
        for module in (cut.prefix, cut.tail, backbone.model):
            module.train()
        again = cut.prefix(inputs)
        assert torch.equal(again, features)
        assert not again.requires_grad
        optimizer.zero_grad()
        cut.tail(again).square().sum().backward()
        assert all(parameter.grad is not None for parameter in cut.tail.parameters())
        assert all(parameter.grad is None for parameter in cut.prefix.parameters())
        optimizer.step()
    assert all(torch.equal(value, prefix[key]) for key, value in cut.prefix.state_dict().items())
    moving = [key for key in tail if key.endswith(("running_mean", "running_var"))]
    assert not any(torch.equal(cut.tail.state_dict()[key], tail[key]) for key in moving)
    backbone.model.eval()
