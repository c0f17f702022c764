"""Files and directories are published completely or not at all."""

import errno
import os
from pathlib import Path

import pytest

from tlcli.storage.publish import (
    atomic_write,
    publish_directory,
    publish_file,
    remove_leftovers,
    remove_temporary_files,
    replace_directory,
    replaced_path,
    restore_directory,
    staging_path,
    sync_directory,
)


def test_file_appears_when_the_block_ends(tmp_path):
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
def test_exception_keeps_the_existing_file(tmp_path, problem):
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


def test_full_disk_keeps_the_existing_file(tmp_path, full_disk):
    path = tmp_path / "file.txt"
    path.write_bytes(b"old")
    with pytest.raises(OSError), full_disk(1000), atomic_write(path) as file:
        file.write(bytes(5000))
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_sync_error_names_the_folder(tmp_path, monkeypatch):
    def broken(descriptor):
        del descriptor
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError) as failed:
        sync_directory(tmp_path)
    assert failed.value.filename == str(tmp_path)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_file_has_the_permissions_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "file.txt") as file:
            file.write(b"")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("name", ["a" * 251 + ".csv", "🚗" * 62 + ".csv", "é" * 125 + ".csv", "new\nline"])
def test_any_name_that_the_file_system_accepts(tmp_path, name):
    (tmp_path / name).write_bytes(b"")  # the file system accepts it
    with atomic_write(tmp_path / name) as file:
        file.write(b"content")
    assert (tmp_path / name).read_bytes() == b"content"


def test_final_name_may_depend_on_the_content(tmp_path):
    with publish_file(tmp_path, ".part-", lambda: f"part-{size}.bin") as file:
        size = file.write(b"content")
        assert [path.name[:6] for path in tmp_path.iterdir()] == [".part-"]
    assert [path.name for path in tmp_path.iterdir()] == ["part-7.bin"]


def test_leftovers_of_one_file_are_removed_and_nothing_else(tmp_path):
    out = tmp_path / "rows.csv"
    names = {".rows.csv.12345678.tmp", ".rows.csv.lock", ".rows.csv.old.12345678.tmp", "rows.csv", "a.tmp"}
    for name in names:
        (tmp_path / name).touch()
    remove_leftovers(out)
    assert {path.name for path in tmp_path.iterdir()} == names - {".rows.csv.12345678.tmp"}


def test_temporary_files_are_removed_recursively(tmp_path):
    (tmp_path / "a").mkdir()
    for name in (".x.tmp", "a/.y.tmp", "a/y", "z.tmp"):
        (tmp_path / name).touch()
    remove_temporary_files(tmp_path)
    assert (tmp_path / "a/.y.tmp").exists()
    remove_temporary_files(tmp_path, recursive=True)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"a", "a/y", "z.tmp"}


def publish(path: Path, text: str, **options):
    with publish_directory(path, staging_path(path), **options) as staging:
        (staging / "inner").mkdir()
        (staging / "inner" / "file").write_text(text)


def test_directory_replaces_another(tmp_path):
    for text in ("first", "second"):
        publish(tmp_path / "out", text)
        assert (tmp_path / "out/inner/file").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_existing_directory_can_be_kept(tmp_path):
    publish(tmp_path / "out", "first")
    publish(tmp_path / "out", "second", keep_existing=True)
    assert (tmp_path / "out/inner/file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_refused_directory_keeps_the_existing_one(tmp_path):
    def refuse():
        raise ValueError

    publish(tmp_path / "out", "first")
    with pytest.raises(ValueError):
        publish(tmp_path / "out", "second", before_rename=refuse)
    assert (tmp_path / "out/inner/file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_interrupted_replacement_is_undone(tmp_path, monkeypatch):
    out = tmp_path / "out"
    publish(out, "first")
    out.rename(replaced_path(out))  # as a process that is killed after the first of two renames leaves it
    restore_directory(out)
    assert (out / "inner/file").read_text() == "first"
    staging_path(out).mkdir()
    rename = Path.rename

    def broken(self, target):
        if self == staging_path(out):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError):
        replace_directory(staging_path(out), out)
    assert (out / "inner/file").read_text() == "first"
