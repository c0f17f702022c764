"""A cut keeps the output of the network, and only its tail is trained."""

import numpy as np
import pytest
import torch
from cut_networks import CLASSES, KINDS, check_cut, images, layer_count, load, parameters
from torch import nn

from tlcli.backbones.backbone import Backbone
from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.torch_engine import TorchRunner
from tlcli.errors import UsageError
from tlcli.features.backbone import make_preprocessing

EVERY_LAYER = [
    ("lenet5", None),
    ("torchvision/alexnet", 64),
    ("test_resnet", 64),
    ("tf_efficientnet_lite0", 64),
    ("test_convnext", 64),
    ("test_vit", 64),
]


def spread_layers(of):
    """Return the first layer, those at a quarter, a half and three quarters, the last one, and `all`."""
    return [*dict.fromkeys(str(max(1, round(of * share))) for share in (0, 0.25, 0.5, 0.75, 1)), "all"]


@pytest.mark.parametrize(("name", "size"), parameters(KINDS))
def test_a_cut_equals_the_whole_network_and_trains_only_the_tail(name, size):
    backbone = load(name, size)
    keys = list(backbone.model.state_dict())
    of = layer_count(backbone)
    for freeze in spread_layers(of):
        cut = check_cut(backbone, freeze)
        assert cut.layer == (of if freeze == "all" else int(freeze))
    assert len(cut.feature_shape) == 1
    assert list(backbone.model.state_dict()) == keys


@pytest.mark.parametrize(
    ("name", "size"),
    [parameters(EVERY_LAYER)[0], *(pytest.param(*row, id=row[0], marks=pytest.mark.slow) for row in EVERY_LAYER[1:])],
)
def test_a_cut_after_every_layer(name, size):
    """Networks of `KINDS` were cut at some layers above."""
    backbone = load(name, size)
    of = layer_count(backbone)
    done = spread_layers(of) if (name, size) in KINDS else ()
    for number in range(1, of + 1):
        if str(number) not in done:
            assert check_cut(backbone, str(number)).layer == number


def test_freeze_none_has_the_identity_as_prefix():
    backbone = load("lenet5")
    cut = cut_at(backbone, "none")
    inputs = images(backbone)
    assert torch.equal(cut.prefix(inputs), inputs)
    assert (cut.layer, cut.name, cut.feature_shape) == (0, "", (1, 32, 32))
    assert all(parameter.requires_grad for parameter in cut.tail.parameters())


def test_the_prefix_is_unchanged_when_train_is_called_on_the_whole_network():
    backbone = load("resnet18", 64)
    cut = cut_at(backbone, "layer2.0")
    inputs = images(backbone)
    features = cut.prefix(inputs)
    state = {key: value.clone() for key, value in backbone.model.state_dict().items()}
    backbone.model.train()
    assert torch.equal(cut.prefix(inputs), features)
    assert all(torch.equal(value, state[key]) for key, value in backbone.model.state_dict().items())


def test_the_trained_tail_is_in_the_state_dict_of_the_network():
    backbone = load("resnet18", 64)
    cut = cut_at(backbone, "layer3")
    names = {name for name, _ in cut.tail.named_parameters()}
    assert names == {name for name, _ in backbone.model.named_parameters() if name.startswith(("layer4", "fc"))}
    with torch.no_grad():
        dict(cut.tail.named_parameters())["layer4.0.conv1.weight"].fill_(7)
    assert backbone.model.state_dict()["layer4.0.conv1.weight"].eq(7).all()


def test_freeze_accepts_the_name_of_a_layer_or_a_stage():
    backbone = load("tf_efficientnet_lite0", 64)
    assert cut_at(backbone, "blocks.3.1").name == "blocks.3.1"
    stage = cut_at(backbone, "blocks.3")
    assert (stage.name, stage.layer) == ("blocks.3.2", 9)


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ("0", "1 to 18"),
        ("19", "1 to 18"),
        ("99", "1 to 18"),
        ("-3", "1 to 18"),
        ("blocks.3.1.conv_pw", "7 .*and 8"),
        ("block.3.1", "blocks.3.1"),
    ],
)
def test_an_unknown_layer_names_the_nearest(freeze, message):
    with pytest.raises(UsageError, match=message):
        cut_at(load("tf_efficientnet_lite0", 64), freeze)


class Shortcut(nn.Module):
    """Six layers; in train mode, the output of the second is added to that of the fourth."""

    pretrained_cfg = {"classifier": "head"}
    num_classes = CLASSES

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three, self.four, self.five, self.six = (nn.Conv2d(3, 3, 3) for _ in range(6))
        self.head = nn.Linear(3, CLASSES)

    def forward(self, inputs):
        two = self.two(self.one(inputs))
        four = self.four(self.three(two))
        if self.training:
            four = four + two[:, :, 2:-2, 2:-2]
        return self.head(self.six(self.five(four)).mean((2, 3)))


@pytest.mark.parametrize("number", [3, 4])
def test_a_forward_pass_that_differs_in_train_mode_names_the_nearest_cuts(number):
    spec = load("tf_efficientnet_lite0", 64).input
    backbone = Backbone(name="shortcut", build=Shortcut().eval, input=spec, origin="random weights")
    with pytest.raises(UsageError, match=r"nearest valid values are 2 \(two\) and 5 \(five\)") as caught:
        cut_at(backbone, str(number))
    assert caught.value.exit_code == 2
    for freeze in ("1", "2", "5", "6", "all"):
        check_cut(backbone, freeze)


def test_a_network_that_cannot_be_cut_anywhere_is_refused():
    backbone = load("crossvit_9_240")
    for freeze in ("1", "all"):
        with pytest.raises(UsageError, match="Use --freeze none"):
            cut_at(backbone, freeze)
    assert cut_at(backbone, "none").tail is backbone.model


def test_a_network_that_cannot_be_traced_can_be_cut_before_the_head():
    backbone = load("twins_svt_small")
    inputs = images(backbone)
    cut = cut_at(backbone, "all")
    cut.prefix.train()
    with torch.no_grad():
        assert torch.equal(cut.tail(cut.prefix(inputs)), backbone.model(inputs))
    assert cut.feature_shape == (512,)
    with pytest.raises(UsageError, match="Use --freeze all or --freeze none"):
        cut_at(backbone, "1")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["twins_svt_small", "tf_efficientnet_lite0"])
def test_parallel_batches_do_not_mix(name):
    backbone = load_backbone(name, "none", classes=3, size=None if name.startswith("twins") else 64)
    cut = cut_at(backbone, "all")
    runner = TorchRunner(cut.prefix, make_preprocessing(backbone, "crop"), device=torch.device("cpu"), precision="fp32")
    side = backbone.input.height
    generator = np.random.default_rng(0)
    batches = [generator.integers(0, 256, (2, side, side, 3), dtype=np.uint8) for _ in range(8)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = list(runner.map(batches))
    finally:
        torch.set_num_threads(threads)
    for found, batch in zip(together, batches, strict=True):
        np.testing.assert_allclose(found, runner.features(batch).numpy(), rtol=1e-4, atol=1e-5)
