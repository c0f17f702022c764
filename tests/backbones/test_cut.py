import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from tlcli.backbones.build import Backbone, build_backbone, pretrained_config
from tlcli.backbones.cut import cut_at
from tlcli.backbones.heads import head_modules, set_head
from tlcli.backbones.timm_config import make_timm_config, rebuild_backbone
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.torch_engine import TorchRunner
from tlcli.errors import UsageError
from tlcli.features.backbone import make_preprocessing

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
EVERY_LAYER = [
    ("lenet5", None),
    ("torchvision/alexnet", 64),
    ("test_resnet", 64),
    ("tf_efficientnet_lite0", 64),
    ("test_convnext", 64),
    ("test_vit", 64),
]
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


def spread_layers(of):
    """Return the first layer, those at a quarter, a half and three quarters, the last one, and `all`."""
    return [*dict.fromkeys(str(max(1, round(of * share))) for share in (0, 0.25, 0.5, 0.75, 1)), "all"]


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


def save(backbone, folder: Path):
    save_file(
        {key: value.contiguous() for key, value in backbone.model.state_dict().items()}, folder / "model.safetensors"
    )
    names = [f"class {index}" for index in range(CLASSES)]
    (folder / "config.json").write_text(json.dumps(make_timm_config(backbone, names)))


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


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), parameters(FAMILIES))
def test_timm_loads_the_state_dict_from_a_local_dir_strictly(name, size, tmp_path):
    backbone = load(name, size)
    save(backbone, tmp_path)
    inputs = images(backbone)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.no_grad():
        expected = backbone.model(inputs)
        assert torch.equal(again(inputs), expected)
    ours = load_backbone(f"local-dir:{tmp_path}")
    with torch.no_grad():
        assert torch.equal(ours.model(inputs), expected)
    assert ours.input == backbone.input


@pytest.mark.parametrize("name", ["lenet5", "torchvision/alexnet", "tf_efficientnet_lite0"])
def test_a_rebuilt_backbone_loads_the_weights_strictly(name):
    backbone = load(name)
    config = json.loads(json.dumps(make_timm_config(backbone, ["a", "b", "c"])))
    again = rebuild_backbone(config)
    again.model.load_state_dict(backbone.model.state_dict(), strict=True)
    inputs = images(backbone)
    with torch.no_grad():
        assert torch.equal(again.model.eval()(inputs), backbone.model(inputs))
    assert again.input == backbone.input
    assert again.name == name


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
    backbone = Backbone(name="shortcut", model=Shortcut().eval(), input=spec, origin="random weights")
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
