"""Pretrained weights are read from the cache, or their absence is reported at once."""

import pytest
import torch
from safetensors.torch import save_file

from tlcli.backbones import hub
from tlcli.backbones.zoo import list_backbones, load_backbone
from tlcli.errors import MachineError, UsageError


@pytest.fixture
def _offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*_, **__):
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", no_network)


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("name", ["resnet18", "torchvision/alexnet"])
def test_missing_weights_offline_are_a_one_line_error(name):
    with pytest.raises(MachineError) as caught:
        load_backbone(name)
    message = str(caught.value)
    assert name in message
    assert "--weights FILE" in message
    assert "\n" not in message


@pytest.mark.usefixtures("_offline")
def test_cached_weights_need_no_network(tmp_path):
    source = load_backbone("resnet18", "none", seed=3).model.state_dict()
    folder = tmp_path / "models--timm--resnet18.a1_in1k" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    save_file(source, folder / "model.safetensors")
    backbone = load_backbone("resnet18", classes=4)
    assert backbone.origin == "pretrained weights (local)"
    assert torch.equal(backbone.model.state_dict()["conv1.weight"], source["conv1.weight"])
    listing = next(line for line in list_backbones("resnet18") if line.name == "resnet18")
    assert listing.local


def test_a_backbone_without_pretrained_weights_is_a_usage_error():
    with pytest.raises(UsageError, match="no pretrained weights of lenet5"):
        load_backbone("lenet5")


def test_cached_weights_are_found(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    config = {"url": "https://example.invalid/net-12345678.pth"}
    assert hub.cached_weights(config) is None
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "net-12345678.pth").touch()
    assert hub.cached_weights(config) is not None
