import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tlcli.backbones import bundled_weights, hub
from tlcli.backbones.heads import head_modules
from tlcli.backbones.timm_config import rebuild_backbone
from tlcli.backbones.zoo import list_backbones, load_backbone
from tlcli.errors import ArtifactError, DataError, MachineError, UsageError


@pytest.fixture
def _offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*_, **__):
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", no_network)


def test_the_default_backbone_loads_its_weights_offline():
    backbone = load_backbone()
    assert backbone.origin == "ImageNet weights (local)"
    source = torch.load(bundled_weights.weights_file(), weights_only=True)
    state = backbone.model.state_dict()
    assert len(state) == len(source) == 296
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(state.values(), source.values(), strict=True))
    spec = backbone.input
    assert (spec.channels, spec.height, spec.width) == (3, 224, 224)
    assert (spec.mean, spec.std, spec.interpolation, spec.crop_fraction) == ((0.5,) * 3, (0.5,) * 3, "bicubic", 0.875)
    assert not backbone.model.training


def test_the_new_head_depends_on_the_seed():
    first, second, third = (head_modules(load_backbone(classes=7, seed=s).model)[0].weight for s in (0, 0, 1))
    assert first.shape == (7, 1280)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_random_layers_do_not_depend_on_the_number_of_classes():
    states = [load_backbone("resnet18", "none", classes=classes).model.state_dict() for classes in (3, 7)]
    for name, tensor in states[0].items():
        assert name.startswith("fc.") or torch.equal(tensor, states[1][name]), name


def test_random_weights_restore_the_global_generator():
    state = torch.get_rng_state()
    first = load_backbone("lenet5", "none", classes=3, seed=5).model.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    second = load_backbone("lenet5", "none", classes=3, seed=5).model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_unknown_name_lists_the_closest_names():
    with pytest.raises(UsageError, match="resnet18"):
        load_backbone("resnet-18", "none")
    with pytest.raises(UsageError, match="no backbone"):
        load_backbone("resnet18.no_such_tag", "none")


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


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
def test_weights_from_a_pth(wrap, tmp_path):
    source = load_backbone("resnet18", "none", classes=9, seed=3).model.state_dict()
    path = tmp_path / "weights.pth"
    torch.save(wrap({f"module.{key}": value for key, value in source.items()}), path)
    backbone = load_backbone("resnet18", str(path), classes=4)
    state = backbone.model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in source.items() if not key.startswith("fc."))
    assert state["fc.weight"].shape == (4, 512)
    assert str(path) in backbone.origin


def test_weights_with_the_original_keys_of_the_default_backbone(tmp_path):
    backbone = load_backbone(weights=str(bundled_weights.weights_file()), classes=2)
    assert torch.equal(backbone.model.conv_stem.weight, load_backbone().model.conv_stem.weight)


def test_position_embeddings_are_resampled_for_another_size(tmp_path):
    path = tmp_path / "vit.safetensors"
    save_file(load_backbone("vit_tiny_patch16_224", "none", classes=5).model.state_dict(), path)
    backbone = load_backbone("vit_tiny_patch16_224", str(path), classes=3, size=96)
    assert backbone.model.pos_embed.shape == (1, 37, 192)
    assert backbone.arguments == {"img_size": 96}


def test_weights_of_another_network_list_the_first_keys(tmp_path):
    path = tmp_path / "wrong.safetensors"
    state = load_backbone("resnet18", "none").model.state_dict()
    state["surprise"] = state.pop("bn1.weight")
    state["conv1.weight"] = torch.zeros(1)
    save_file(state, path)
    with pytest.raises(ArtifactError) as caught:
        load_backbone("resnet18", str(path))
    for part in ("1 missing (bn1.weight)", "1 unexpected (surprise)", "conv1.weight (1,) instead of (64, 3, 7, 7)"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: weight.to_sparse(), r"conv1.weight \(sparse_coo\)"),
        (lambda weight: weight.to("meta"), r"conv1.weight \(without values, on meta\)"),
        (lambda weight: weight.to(torch.complex64), r"conv1.weight \(complex\)"),
        (lambda weight: weight.to(torch.int8), r"1 tensors with another type \(conv1.weight int8 instead of float32\)"),
        (lambda weight: weight.bool(), r"conv1.weight bool instead of float32"),
    ],
)
def test_tensors_of_an_unsupported_kind_are_refused_by_name(change, message, tmp_path):
    state, path = load_backbone("resnet18", "none").model.state_dict(), tmp_path / "unsupported.pth"
    torch.save(state | {"conv1.weight": change(state["conv1.weight"])}, path)
    with pytest.raises(ArtifactError, match=rf"unsupported\.pth .*{message}"):
        load_backbone("resnet18", str(path))


def test_floats_for_a_counter_are_refused_and_half_precision_is_not(tmp_path):
    state, path = load_backbone("resnet18", "none").model.state_dict(), tmp_path / "mixed.safetensors"
    save_file({key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}, path)
    assert load_backbone("resnet18", str(path)).model.conv1.weight.dtype == torch.float32
    save_file(state | {"bn1.num_batches_tracked": torch.tensor(0.5)}, path)
    with pytest.raises(ArtifactError, match=r"bn1\.num_batches_tracked float32 instead of int64"):
        load_backbone("resnet18", str(path))


class Hostile:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return (Path.touch, (self.sentinel,))


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_that_executes_code_is_refused(save, tmp_path):
    sentinel, path = tmp_path / "sentinel", tmp_path / "weights.pth"
    save({"state_dict": Hostile(sentinel)}, path)
    with pytest.raises(ArtifactError, match="refused"):
        load_backbone("resnet18", str(path))
    assert not sentinel.exists()


@pytest.mark.parametrize("name", ["noise.safetensors", "noise.pth", "empty.pth"])
def test_random_bytes_are_refused(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"" if name.startswith("empty") else b"\x00noise" * 100)
    with pytest.raises(ArtifactError, match=name):
        load_backbone("lenet5", str(path))


def test_a_missing_weights_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.pth"):
        load_backbone("lenet5", str(tmp_path / "nowhere.pth"))


def test_an_unsupported_size_lists_sizes_that_work():
    with pytest.raises(UsageError, match="192, 224"):
        load_backbone("maxvit_rmlp_pico_rw_256", "none", size=200)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ArtifactError, match="resnet_from_the_future"):
        rebuild_backbone({"architecture": "resnet_from_the_future", "num_classes": 2, "pretrained_cfg": {}})
    with pytest.raises(ArtifactError, match="no architecture"):
        rebuild_backbone({})


def test_list_backbones():
    lines = {line.name: line for line in list_backbones("*lite0*")}
    assert lines["tf_efficientnet_lite0"].local
    assert lines["tf_efficientnet_lite0"].parameters == 4_652_008
    assert {line.name for line in list_backbones("lenet5")} == {"lenet5"}
    assert len(list_backbones()) > 500
    assert list_backbones("no such thing") == []


def test_cached_weights_are_found(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    config = {"url": "https://example.invalid/net-12345678.pth"}
    assert hub.cached_weights(config) is None
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "net-12345678.pth").touch()
    assert hub.cached_weights(config) is not None
