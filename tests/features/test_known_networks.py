"""The outline of a network is kept beside its features, and holds while the weights file does."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tlcli.backbones.build import build_backbone, pretrained_config
from tlcli.backbones.config_file import make_timm_config
from tlcli.errors import ArtifactError
from tlcli.features.cache import FeatureCache
from tlcli.features.fingerprint import ingredients
from tlcli.features.known_networks import cut_and_digest, keep_outline, open_backbone
from tlcli.settings import NetworkSettings

NAME, CLASSES = "test_efficientnet", 3
CONVERTED = "test_vit"


def weights(folder, name=NAME, seed=0, **arguments):
    """Save random weights as a file."""
    torch.manual_seed(seed)
    model = build_backbone(name, pretrained_config(name), classes=5, size=None, **arguments).model
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "weights.safetensors")
    return NetworkSettings(backbone=name, weights=str(folder / "weights.safetensors"))


def keep(wanted, folder, small, report):
    """Build a network and keep its outline as an extraction does; return the network, its cut, and its digest."""
    cache = FeatureCache(folder / "cache", report)
    backbone = open_backbone(wanted, classes=CLASSES, cache=cache)
    assert backbone.unbuilt is None
    cut, digest = cut_and_digest(backbone, "all")
    content = ingredients(
        backbone=backbone.name, weights=digest, layer=1, layer_name="", preprocessing=small, numerics="fp32"
    )
    store = cache.open(content, cut.feature_shape, cached=True)
    store.make()
    keep_outline(backbone, cut, store)
    return backbone, cut, digest


def reopen(wanted, folder, report, classes=CLASSES):
    return open_backbone(wanted, classes=classes, cache=FeatureCache(folder / "cache", report))


def test_an_outline_equals_the_network(tmp_path, small, report):
    wanted = weights(tmp_path)
    built, cut, digest = keep(wanted, tmp_path, small, report)
    known = reopen(wanted, tmp_path, report)
    assert known.unbuilt is not None
    again, same_digest = cut_and_digest(known, "all")
    assert same_digest == digest
    assert (again, known.input, known.origin, known.name) == (cut, built.input, built.origin, built.name)
    weight, bias = torch.randn(CLASSES, cut.feature_shape[0]), torch.randn(CLASSES)
    for backbone in (built, known):
        backbone.set_head(weight, bias)
    ours, theirs = known.state_dict(), built.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert all(torch.equal(*pair) for pair in zip(known.head(), built.head(), strict=True))
    names = ["a", "b", "c"]
    assert json.dumps(make_timm_config(known, names)) == json.dumps(make_timm_config(built, names))
    assert known.unbuilt is not None  # none of this built it


def test_the_network_is_built_when_something_runs_it(tmp_path, small, report):
    wanted = weights(tmp_path)
    built, cut, _ = keep(wanted, tmp_path, small, report)
    known = reopen(wanted, tmp_path, report)
    head = torch.randn(CLASSES, cut.feature_shape[0]), torch.randn(CLASSES)
    known.set_head(*head)
    images = torch.rand(2, 3, built.input.height, built.input.width)
    with torch.no_grad():
        features = cut_and_digest(known, "all")[0].prefix(images)
        assert torch.equal(features, cut.prefix(images))
        torch.testing.assert_close(known.model(images), features @ head[0].T + head[1])
    assert known.unbuilt is None


def test_changed_weights_are_not_known(tmp_path, small, report):
    wanted = weights(tmp_path)
    _, _, digest = keep(wanted, tmp_path, small, report)
    weights(tmp_path, seed=1)
    changed = reopen(wanted, tmp_path, report)
    assert changed.unbuilt is None
    assert cut_and_digest(changed, "all")[1] != digest


@pytest.mark.parametrize("other", [{"freeze": "1"}, {"weights": "none"}, {"size": 64}])
def test_other_settings_are_not_known(other, tmp_path, small, report):
    wanted = weights(tmp_path)
    keep(wanted, tmp_path, small, report)
    values = {"backbone": NAME, "weights": wanted.weights} | other
    assert reopen(NetworkSettings(**values), tmp_path, report).unbuilt is None


def test_a_damaged_outline_is_made_again(tmp_path, small, report):
    wanted = weights(tmp_path)
    keep(wanted, tmp_path, small, report)
    (outline,) = (tmp_path / "cache").glob("*/network-*.json")
    outline.write_bytes(outline.read_bytes()[:-9])
    keep(wanted, tmp_path, small, report)
    assert reopen(wanted, tmp_path, report).unbuilt is not None


def test_weights_that_timm_converts_have_no_outline(tmp_path, small, report):
    """Position embeddings are resized, so the network's tensors are not those of the file."""
    wanted = weights(tmp_path, CONVERTED)
    resized = NetworkSettings(backbone=CONVERTED, weights=wanted.weights, size=96)
    keep(resized, tmp_path, small, report)
    (outline,) = (tmp_path / "cache").glob("*/network-*.json")
    assert json.loads(outline.read_bytes()) is None
    assert reopen(resized, tmp_path, report).unbuilt is None


def test_a_folder_has_no_outline(tmp_path, small, report):
    """Its config.json may change while its weights stay the same."""
    built = keep(weights(tmp_path), tmp_path / "first", small, report)[0]
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file({key: value.contiguous() for key, value in built.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(make_timm_config(built, ["a", "b", "c"])))
    wanted = NetworkSettings(backbone=f"local-dir:{folder}")
    keep(wanted, tmp_path / "second", small, report)
    assert not list((tmp_path / "second").glob("cache/*/network-*.json"))
    assert reopen(wanted, tmp_path / "second", report).unbuilt is None


@pytest.mark.parametrize("back", [False, True])
def test_weights_that_change_after_the_outline_was_checked_are_refused(tmp_path, small, report, back):
    """Otherwise wrong features would stay under the fingerprint of the right weights."""
    wanted = weights(tmp_path)
    original = (tmp_path / "weights.safetensors").read_bytes()
    _, cut, _ = keep(wanted, tmp_path, small, report)
    known = reopen(wanted, tmp_path, report)
    again, _ = cut_and_digest(known, "all")
    known.set_head(torch.randn(CLASSES, cut.feature_shape[0]), torch.randn(CLASSES))
    weights(tmp_path, seed=1)
    with pytest.raises(ArtifactError, match="changed while the command was running"):
        known.state_dict()
    with pytest.raises(ArtifactError, match="changed while the command was running"):
        again.prefix  # noqa: B018
    if back:
        (tmp_path / "weights.safetensors").write_bytes(original)
        assert known.state_dict()


def test_an_outline_that_cannot_be_read_is_ignored(tmp_path, small, report):
    wanted = weights(tmp_path)
    keep(wanted, tmp_path, small, report)
    (path,) = (tmp_path / "cache").glob("*/network-*.json")
    path.unlink()
    path.mkdir()
    assert reopen(wanted, tmp_path, report).unbuilt is None
