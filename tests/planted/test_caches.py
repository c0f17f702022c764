"""Hostile parts of a feature cache are ignored, and never executed."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pytest
from hostile_files import NETWORK, Payload

from tlcli.cli.main import run
from tlcli.features.parts import write_part
from tlcli.storage.files import sha256_file


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
