"""Hostile files with valid checksums are refused with a message, and never executed."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

from tlcli.cli.main import run
from tlcli.errors import ArtifactError
from tlcli.features.parts import write_part
from tlcli.images.worker import DecodedImage, receive_image, send_image
from tlcli.runs.run import load_run
from tlcli.storage.files import sealed, sha256_file

NETWORK = ["--backbone", "lenet5", "--weights", "none", "--workers", "1"]


@pytest.fixture
def sentinel(tmp_path):
    """A path that hostile files try to create; the test fails if it exists afterwards."""
    path = tmp_path / "sentinel"
    yield path
    assert not path.exists(), "a hostile file was executed"


class Payload:
    """Calls `os.system` when it is unpickled."""

    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch '{self.sentinel}'",)


def torch_file(path, sentinel):
    torch.save({"conv1.weight": Payload(sentinel)}, path)


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


@pytest.fixture(scope="module")
def made(photos, tmp_path_factory):
    """A small run and its cache."""
    folder = tmp_path_factory.mktemp("made")
    command = ["finetune", str(photos), "--out", str(folder / "run"), "--cache", str(folder / "cache"), *NETWORK]
    assert run([*command, "--quiet"]) == 0
    return folder


def manipulated(made, tmp_path, change):
    """Copy the run and change its `run.json`, with a valid checksum."""
    folder = tmp_path / "manipulated"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made / "run", folder)
    info = json.loads((folder / "run.json").read_text())
    del info["sha256"]
    change(info, folder)
    (folder / "run.json").write_text(json.dumps(sealed(info)))
    return folder


ODD = (None, "x", -1, 0, 1e300, float("nan"), float("inf"), True, [], {}, ["x"], {"x": 1}, [[[]]], 2**70)
DEEP = ("preprocessing", "freeze", "head", "images", "files", "validation", "settings")
NEEDED = {"format", "classes", "preprocessing", "files", "temperature", "log_prior", "freeze", "precision", "backbone"}


@pytest.mark.slow
def test_invalid_values_in_run_json_are_refused_or_ignored(made, photos, tmp_path, capsys):
    """Remove or replace each key of run.json and its nested objects: there must never be a traceback."""
    whole = json.loads((made / "run" / "run.json").read_text())
    keys = [(key,) for key in whole if key != "sha256"]
    keys += [(key, inner) for key in DEEP for inner in whole[key]]
    folder, refused = manipulated(made, tmp_path, lambda info, folder: None), set()
    for key_path in keys:
        predicted = False
        for value in (..., *ODD):
            info = {key: copy.deepcopy(whole[key]) for key in whole if key != "sha256"}
            at = info[key_path[0]] if len(key_path) > 1 else info
            if value is ...:
                del at[key_path[-1]]
            else:
                at[key_path[-1]] = copy.deepcopy(value)
            (folder / "run.json").write_text(json.dumps(sealed(info)))
            try:
                load_run(folder)
            except ArtifactError as error:
                refused.add(key_path[0] if str(folder) in error.message else error.message)
                continue
            if (
                not predicted or key_path[0] in NEEDED
            ):  # keys that are never read may have any value; testing one is enough
                command = ["predict", str(folder), str(photos / "disc" / "00.jpg"), "--workers", "1", "--quiet"]
                assert run(command) == 0, (key_path, value)
                assert "disc/00.jpg" in capsys.readouterr().out
                predicted = True
    assert refused >= NEEDED


def test_a_run_with_files_outside_its_folder_is_refused(made, tmp_path, capsys):
    outside = tmp_path / "outside.txt"
    outside.write_text("secret")

    def change(info, folder):
        info["files"]["../outside.txt"] = sha256_file(outside)

    assert run(["predict", str(manipulated(made, tmp_path, change)), str(outside), "--quiet"]) == 4
    assert "the value of files is invalid" in capsys.readouterr().err


def reconfigured(made, tmp_path, **changes):
    """Copy the run and change its `config.json`."""

    def change(info, folder):
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))
        info["files"]["config.json"] = sha256_file(folder / "config.json")

    return manipulated(made, tmp_path, change)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_args": {"checkpoint_path": "hostile.pth"}},
        {"model_args": {"pretrained": True}},
        {"model_args": {"pretrained_cfg_overlay": {"file": "hostile.pth"}}},
        {"architecture": "hf-hub:somebody/something"},
        {"architecture": "local-dir:/tmp"},
        {"architecture": ["resnet18"]},
        {"architecture": "../../resnet18"},
        {"model_args": {"no_such_argument": 1}, "architecture": "resnet18"},
        {"architecture": "resnet18"},
        {"num_classes": 2**40, "pretrained_cfg": {"num_classes": "many"}},
    ],
)
def test_a_config_that_loads_other_files_or_does_not_match_is_refused(
    changes, made, photos, tmp_path, sentinel, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch_file(tmp_path / "hostile.pth", sentinel)
    folder = reconfigured(made, tmp_path, **changes)
    assert run(["predict", str(folder), str(photos), "--engine", "torch", "--quiet"]) == 4
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("artifact: ")


class HostileExtension(pa.ExtensionType):
    """Has the name under which old versions of pyarrow unpickled a type from a file's metadata."""

    def __init__(self, payload):
        self.payload = payload
        super().__init__(pa.int32(), "arrow.py_extension_type")

    def __arrow_ext_serialize__(self):
        return self.payload

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type, serialized):
        raise AssertionError("never registered")


def features(count, shape=(84,), kind=np.float32):
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((count, *shape), kind))


def parts():
    """Return parts that do not match a cache of 84 float32 values per image."""
    digests, views = pa.array([bytes(32)] * 3, pa.binary(32)), pa.array([0] * 3, pa.int32())
    return {
        "another shape": pa.table({"digest": digests, "view": views, "feature": features(3, (85,))}),
        "another type": pa.table({"digest": digests, "view": views, "feature": features(3, kind=np.float64)}),
        "no tensors": pa.table({"digest": digests, "view": views, "feature": views}),
        "other columns": pa.table({"x": views}),
        "short digests": pa.table({"digest": pa.array([b"x"] * 3), "view": views, "feature": features(3)}),
        "no digests": pa.table({"digest": pa.nulls(3, pa.binary(32)), "view": views, "feature": features(3)}),
    }


def test_a_pickle_in_the_schema_of_a_part_is_not_loaded(made, photos, tmp_path, sentinel):
    cache, views = tmp_path / "cache", pa.array([0] * 3, pa.int32())
    shutil.copytree(made / "cache", cache)
    (folder,) = (path for path in cache.iterdir() if path.name != "memo")
    hostile = pa.ExtensionArray.from_storage(HostileExtension(pickle.dumps(Payload(sentinel))), views)
    digests = pa.array([bytes(32)] * 3, pa.binary(32))
    write_part(folder, pa.table({"digest": digests, "view": hostile, "feature": features(3)}))
    command = ["finetune", str(photos), "--out", str(tmp_path / "run"), "--cache", str(cache), *NETWORK]
    assert run([*command, "--quiet"]) == 0
    assert sha256_file(tmp_path / "run" / "model.safetensors") == sha256_file(made / "run" / "model.safetensors")


@pytest.mark.parametrize("what", parts())
def test_a_part_with_other_contents_is_ignored(what, made, photos, tmp_path, capsys):
    cache = tmp_path / "cache"
    shutil.copytree(made / "cache", cache)
    (folder,) = (path for path in cache.iterdir() if path.name != "memo")
    path = write_part(folder, parts()[what])
    command = ["finetune", str(photos), "--out", str(tmp_path / "run"), "--cache", str(cache), *NETWORK]
    assert run([*command, "--json"]) == 0
    output = capsys.readouterr()
    assert f"{path} holds no features of this cache" in output.err
    assert json.loads(output.out)["images"]["reused"] == 45
    for name in ("model.safetensors", "config.json"):
        assert sha256_file(tmp_path / "run" / name) == sha256_file(made / "run" / name)


def test_a_part_that_is_not_an_arrow_file_is_ignored(made, photos, tmp_path, capsys):
    cache = tmp_path / "cache"
    shutil.copytree(made / "cache", cache)
    (folder,) = (path for path in cache.iterdir() if path.name != "memo")
    for number, data in enumerate((b"", b"ARROW1\0\0" + bytes(100) + b"ARROW1", b"no arrow at all")):
        (folder / f"part-{900 + number:06d}-{hashlib.sha256(data).hexdigest()[:32]}.arrow").write_bytes(data)
    command = ["finetune", str(photos), "--out", str(tmp_path / "run"), "--cache", str(cache), *NETWORK]
    assert run([*command, "--json"]) == 0
    output = capsys.readouterr()
    assert output.err.count("is damaged") == 3
    assert json.loads(output.out)["images"]["reused"] == 45


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"[]", b"1e999999"])
def test_malformed_json_is_refused(content, made, photos, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(made / "run", folder)
    (folder / "run.json").write_bytes(content)
    assert run(["predict", str(folder), str(photos), "--quiet"]) == 4
    assert "run.json" in capsys.readouterr().err


def test_contents_of_files_named_in_a_table_are_not_shown(made, tmp_path, capsys):
    secret = tmp_path / "secret.txt"
    secret.write_text("the launch code is 0000")
    (tmp_path / "in").mkdir()
    table = tmp_path / "in" / "table.csv"
    table.write_text("path,label\n../secret.txt,disc\n../../../../../../../etc/passwd,disc\n")
    assert run(["evaluate", str(made / "run"), str(table), "--json"]) == 4
    output = capsys.readouterr()
    assert "launch" not in output.out + output.err
    assert "root:" not in output.out + output.err


AUDITED = """
import sys
def audit(event, arguments):
    if event in {"socket.bind", "socket.listen", "socket.connect", "socket.getaddrinfo"}:
        print("NETWORK", event, arguments, file=sys.stderr, flush=True)
sys.addaudithook(audit)
from tlcli.cli.main import run
from tlcli.errors import ArtifactError
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_no_network_access(photos, made, tmp_path):
    """Commands open no sockets; decoder processes import nothing that could.

    Libraries with telemetry store data in the home directory before sending it, so nothing may appear there.
    """
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}
    for command in (
        ["finetune", photos, "--size", "64", "--out", tmp_path / "run", "--cache", tmp_path / "cache"],
        ["predict", tmp_path / "run", photos],
        ["predict", tmp_path / "run", photos, "--engine", "torch"],
        ["backbones", "resnet18"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", AUDITED, *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        assert "NETWORK" not in done.stderr
    assert not list(home.rglob("*"))


def test_the_output_of_a_decoder_is_never_unpickled():
    """A decoder sends JSON and bytes; a pickle is not accepted as an image."""
    with pytest.raises(EOFError):
        receive_image(io.BytesIO(pickle.dumps(Payload("/dev/null"))))


@pytest.mark.parametrize("length", [-1, 4, 2**40, "3", 1.5, [3]])
def test_a_decoder_that_sends_a_wrong_length_is_treated_as_crashed(length):
    stream = io.BytesIO()
    send_image(stream, DecodedImage(digest=bytes(32), pixels=b"abc"))
    whole = stream.getvalue()
    assert receive_image(io.BytesIO(whole)).pixels == b"abc"
    assert whole.count(b", 3]\n") == 1
    with pytest.raises(EOFError):
        receive_image(io.BytesIO(whole.replace(b", 3]\n", f", {json.dumps(length)}]\n".encode())))
