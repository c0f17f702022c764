"""Files that appear whole or not at all, and names that survive any encoding."""

import errno
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
from tlcli.storage.publish import atomic_write, sync_directory


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_write(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    with atomic_write(path) as file:
        file.write(b"two")
        file.flush()
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_what_was_there(tmp_path, problem):
    path = tmp_path / "file.txt"
    path.write_bytes(b"old")

    def interrupted():
        with atomic_write(path) as file:
            file.write(b"half of it")
            raise problem

    with pytest.raises(problem):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_full_disk_leaves_what_was_there(tmp_path, full_disk):
    path = tmp_path / "file.txt"
    path.write_bytes(b"old")
    with pytest.raises(OSError), full_disk(1000), atomic_write(path) as file:
        file.write(bytes(5000))
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_folder_that_cannot_be_synced_is_named(tmp_path, monkeypatch):
    def broken(descriptor):
        del descriptor
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError) as failed:
        sync_directory(tmp_path)
    assert failed.value.filename == str(tmp_path)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_file_has_the_permissions_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "file.txt") as file:
            file.write(b"")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("name", ["a" * 251 + ".csv", "🚗" * 62 + ".csv", "é" * 125 + ".csv", "new\nline"])
def test_any_name_that_the_file_system_takes(tmp_path, name):
    (tmp_path / name).write_bytes(b"")  # the file system takes it
    with atomic_write(tmp_path / name) as file:
        file.write(b"content")
    assert (tmp_path / name).read_bytes() == b"content"


def test_json_comes_back(tmp_path):
    content = {"name": "caf\u00e9 🚗 \udce9", "values": [1, 0.1, None, True], "inner": {}}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json", "a test")["values"] == content["values"]
    write_json(tmp_path / "y.json", content | {"name": "é🚗"})
    assert read_json(tmp_path / "y.json", "a test") == content | {"name": "é🚗"}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b'"text"', b"\xff\xfe\x00", b"[" * 100_000])
def test_json_that_is_none_names_the_file(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"x\.json") as caught:
        read_json(path, "a run of tlcli")
    assert caught.value.path == str(path)
    assert "a run of tlcli" in caught.value.message


def test_json_that_is_missing(tmp_path):
    with pytest.raises(ArtifactError, match="missing"):
        read_json(tmp_path / "x.json", "a run of tlcli")


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.floats(allow_nan=False)), max_size=5))
def test_canonical_json_does_not_depend_on_the_order_of_keys(content):
    backwards = dict(reversed(content.items()))
    assert canonical_json(content) == canonical_json(backwards)
    assert json.loads(canonical_json(content)) == content


def test_the_checksum_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(bytes(range(256)) * 1000)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(bytes(range(256)) * 1000).hexdigest()


@given(
    st.binary(min_size=1, max_size=30).filter(lambda name: not set(name) & {0, ord("/")} and name not in {b".", b".."})
)
def test_every_path_has_a_portable_name_that_leads_back(name):
    path = "/folder/" + os.fsdecode(name)
    portable = portable_name(path)
    portable.encode("utf8")
    assert from_portable_name(portable) == path


def test_names_that_are_text_stay_as_they_are():
    for name in ("photos/a b.jpg", "é🚗\n'", "-", "100%.jpg"):
        assert portable_name(name) == name
    assert portable_name("/caf\udce9/100%.jpg") == "file:///caf%E9/100%25.jpg"


def test_a_relative_name_that_is_not_utf8_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert from_portable_name(portable_name("caf\udce9.jpg")) == str(tmp_path / "caf\udce9.jpg")


def test_sizes_for_people():
    assert [megabytes(n) for n in (0, 812, 3_100, 3_100_000, 1_249_000_000)] == [
        "0 bytes",
        "812 bytes",
        "3.1 kB",
        "3.1 MB",
        "1.2 GB",
    ]


def test_what_is_kept_is_found_and_what_was_damaged_is_told_of_and_removed(tmp_path):
    told = []
    directory = tmp_path / "new"
    assert load_checksummed(directory, "thing", ".bin", told.append) is None
    save_checksummed(directory, "thing", ".bin", b"costly")
    save_checksummed(directory, "thing-else", ".bin", b"other")
    assert load_checksummed(directory, "thing", ".bin", told.append) == b"costly"
    assert load_checksummed(directory, "thing-else", ".bin", told.append) == b"other"
    (path,) = (path for path in directory.iterdir() if path.read_bytes() == b"costly")
    path.write_bytes(b"costlY")
    assert load_checksummed(directory, "thing", ".bin", told.append) is None
    assert told == [path]
    assert load_checksummed(directory, "thing-else", ".bin", told.append) == b"other"
    save_checksummed(directory, "thing", ".bin", b"costly")
    assert load_checksummed(directory, "thing", ".bin", told.append) == b"costly"


def test_where_nothing_can_be_written_nothing_is_kept(public_path, unprivileged):
    directory = public_path / "locked"
    directory.mkdir(mode=0o555)
    with unprivileged():
        save_checksummed(directory, "thing", ".bin", b"costly")
    assert list(directory.iterdir()) == []
