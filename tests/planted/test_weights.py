"""Hostile files of weights are refused with a message, and never executed."""

from __future__ import annotations

import json
import pickle
import struct

import numpy as np
import pytest
import torch
from hostile_files import Payload, torch_file

from tlcli.cli.main import run


def legacy_torch_file(path, sentinel):
    torch.save({"conv1.weight": Payload(sentinel)}, path, _use_new_zipfile_serialization=False)


def plain_pickle(path, sentinel):
    path.write_bytes(pickle.dumps(Payload(sentinel)))


def numpy_file(path, sentinel):
    with path.open("wb") as file:
        np.save(file, np.array([Payload(sentinel)], dtype=object), allow_pickle=True)


def torchscript_file(path, sentinel):
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [torch_file, legacy_torch_file, plain_pickle, numpy_file, torchscript_file])
@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights.bin", "weights.safetensors"])
def test_weights_are_never_executed(make, name, photos, tmp_path, sentinel, capsys):
    make(tmp_path / name, sentinel)
    command = ["finetune", str(photos), "--backbone", "lenet5", "--weights", str(tmp_path / name)]
    assert run([*command, "--out", str(tmp_path / "run"), "--no-cache", "--quiet"]) == 4
    assert name in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def safetensors_file(header, data=b"", length=None):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors_file({}, length=2**63),
        safetensors_file({}, length=2**40),
        safetensors_file(b"{" * 100_000),
        safetensors_file({"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])}, bytes(12)),
        safetensors_file({"a": tensor(0, 8, [2**62])}, bytes(8)),
        safetensors_file({"a": tensor(0, 8, [2**31, 2**31, 4])}, bytes(8)),
        safetensors_file({"a": tensor(8, 0, [2])}, bytes(8)),
        safetensors_file({"a": tensor(0, 800, [200])}, bytes(8)),
        safetensors_file({"a": tensor(0, 8, [2], "F99")}, bytes(8)),
        safetensors_file({"a": tensor(0, 8, [-2])}, bytes(8)),
        safetensors_file({"conv1.weight": tensor(0, 8, [2])}, bytes(8)),
        b"",
    ],
)
def test_malformed_safetensors_are_refused(content, photos, tmp_path, capsys):
    (tmp_path / "odd.safetensors").write_bytes(content)
    command = ["finetune", str(photos), "--backbone", "lenet5", "--weights", str(tmp_path / "odd.safetensors")]
    assert run([*command, "--out", str(tmp_path / "run"), "--no-cache", "--quiet"]) == 4
    assert "odd.safetensors" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_refused(photos, tmp_path, capsys):
    from safetensors.torch import save_file

    from tlcli.backbones.zoo import load_backbone

    state = load_backbone("lenet5", "none", classes=3).model.state_dict()
    save_file(
        {name: torch.full_like(values, float("nan")) for name, values in state.items()}, tmp_path / "nan.safetensors"
    )
    command = ["finetune", str(photos), "--backbone", "lenet5", "--weights", str(tmp_path / "nan.safetensors")]
    assert run([*command, "--out", str(tmp_path / "run"), "--no-cache", "--quiet"]) == 4
    assert "NaN or infinite" in capsys.readouterr().err
