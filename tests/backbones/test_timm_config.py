"""A network is rebuilt from timm's config.json, and loads its weights strictly."""

import json
from pathlib import Path

import pytest
import timm
import torch
from cut_networks import CLASSES, FAMILIES, images, load, parameters
from safetensors.torch import save_file

from tlcli.backbones.config_file import make_timm_config
from tlcli.backbones.timm_config import rebuild_backbone
from tlcli.backbones.zoo import load_backbone
from tlcli.errors import ArtifactError


def save(backbone, folder: Path):
    save_file(
        {key: value.contiguous() for key, value in backbone.model.state_dict().items()}, folder / "model.safetensors"
    )
    names = [f"class {index}" for index in range(CLASSES)]
    (folder / "config.json").write_text(json.dumps(make_timm_config(backbone, names)))


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


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ArtifactError, match="resnet_from_the_future"):
        rebuild_backbone({"architecture": "resnet_from_the_future", "num_classes": 2, "pretrained_cfg": {}})
    with pytest.raises(ArtifactError, match="no architecture"):
        rebuild_backbone({})
