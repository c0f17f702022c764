"""Weights files are read without executing code, and fit the network or are refused."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tlcli.backbones.zoo import load_backbone
from tlcli.errors import ArtifactError, DataError


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
