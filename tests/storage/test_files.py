"""JSON files, checksums, and names that survive any encoding."""

import hashlib
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcli.errors import ArtifactError
from tlcli.storage.files import (
    canonical_json,
    from_portable_name,
    load_checksummed,
    megabytes,
    portable_name,
    read_json,
    save_checksummed,
    sha256_file,
    write_json,
)


def test_json_round_trip(tmp_path):
    content = {"name": "caf\u00e9 🚗 \udce9", "values": [1, 0.1, None, True], "inner": {}}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json", "a test")["values"] == content["values"]
    write_json(tmp_path / "y.json", content | {"name": "é🚗"})
    assert read_json(tmp_path / "y.json", "a test") == content | {"name": "é🚗"}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b'"text"', b"\xff\xfe\x00", b"[" * 100_000])
def test_invalid_json_error_names_the_file(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"x\.json") as caught:
        read_json(path, "a run of tlcli")
    assert caught.value.path == str(path)
    assert "a run of tlcli" in caught.value.message


def test_missing_json_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="missing"):
        read_json(tmp_path / "x.json", "a run of tlcli")


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.floats(allow_nan=False)), max_size=5))
def test_canonical_json_does_not_depend_on_the_order_of_keys(content):
    backwards = dict(reversed(content.items()))
    assert canonical_json(content) == canonical_json(backwards)
    assert json.loads(canonical_json(content)) == content


def test_checksum_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(bytes(range(256)) * 1000)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(bytes(range(256)) * 1000).hexdigest()


@given(
    st.binary(min_size=1, max_size=30).filter(lambda name: not set(name) & {0, ord("/")} and name not in {b".", b".."})
)
def test_portable_name_round_trip_for_any_path(name):
    path = "/folder/" + os.fsdecode(name)
    portable = portable_name(path)
    portable.encode("utf8")
    assert from_portable_name(portable) == path


def test_utf8_names_are_unchanged():
    for name in ("photos/a b.jpg", "é🚗\n'", "-", "100%.jpg"):
        assert portable_name(name) == name
    assert portable_name("/caf\udce9/100%.jpg") == "file:///caf%E9/100%25.jpg"


def test_relative_name_that_is_not_utf8_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert from_portable_name(portable_name("caf\udce9.jpg")) == str(tmp_path / "caf\udce9.jpg")


def test_formatted_sizes():
    assert [megabytes(n) for n in (0, 812, 3_100, 3_100_000, 1_249_000_000)] == [
        "0 bytes",
        "812 bytes",
        "3.1 kB",
        "3.1 MB",
        "1.2 GB",
    ]


def test_checksummed_file_is_loaded_and_a_damaged_one_reported_and_removed(tmp_path):
    damaged = []
    directory = tmp_path / "new"
    assert load_checksummed(directory, "thing", ".bin", damaged.append) is None
    save_checksummed(directory, "thing", ".bin", b"costly")
    save_checksummed(directory, "thing-else", ".bin", b"other")
    assert load_checksummed(directory, "thing", ".bin", damaged.append) == b"costly"
    assert load_checksummed(directory, "thing-else", ".bin", damaged.append) == b"other"
    (path,) = (path for path in directory.iterdir() if path.read_bytes() == b"costly")
    path.write_bytes(b"costlY")
    assert load_checksummed(directory, "thing", ".bin", damaged.append) is None
    assert damaged == [path]
    assert load_checksummed(directory, "thing-else", ".bin", damaged.append) == b"other"
    save_checksummed(directory, "thing", ".bin", b"costly")
    assert load_checksummed(directory, "thing", ".bin", damaged.append) == b"costly"


def test_read_only_folder_gets_no_checksummed_file(public_path, unprivileged):
    directory = public_path / "locked"
    directory.mkdir(mode=0o555)
    with unprivileged():
        save_checksummed(directory, "thing", ".bin", b"costly")
    assert list(directory.iterdir()) == []
