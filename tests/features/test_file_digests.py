"""Digests of files: read once, then taken from the memo."""

import hashlib
import os

import pytest

from tlcli.features import file_digests
from tlcli.features.file_digests import DigestReader
from tlcli.progress import Silent
from tlcli.settings import CacheSettings


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("1.jpg", "2.jpg")]
    for path in paths:
        path.write_text(path.name)
        os.utime(path, (1e9, 1e9))
    return [str(path) for path in paths]


@pytest.fixture
def old_enough(monkeypatch):
    """Remember files that were just written."""
    monkeypatch.setattr("tlcli.features.memo.RACY_NANOSECONDS", 0)
    monkeypatch.setattr("tlcli.features.memo.RACY_TICK", 0)


def forbid_reading(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a file is read again")

    monkeypatch.setattr(file_digests, "ImageLoader", refuse)


def test_unreadable_files_have_no_digest(files, tmp_path):
    found = DigestReader(None, workers=2, report=Silent()).read([*files, str(tmp_path / "none.jpg")])
    assert found == [hashlib.sha256(name).digest() for name in (b"1.jpg", b"2.jpg")] + [None]


def test_unchanged_files_are_not_read_again(files, tmp_path, monkeypatch, old_enough):
    cache = CacheSettings(directory=tmp_path / "cache")
    expected = DigestReader(cache, workers=1, report=Silent()).read(files)
    in_memory = DigestReader(None, workers=1, report=Silent())
    in_memory.read(files)
    forbid_reading(monkeypatch)
    assert DigestReader(cache, workers=1, report=Silent()).read(files) == expected
    assert in_memory.read(files) == expected
    for other in (CacheSettings(directory=tmp_path / "cache", verify=True), CacheSettings(enabled=False), None):
        with pytest.raises(AssertionError, match="read again"):
            DigestReader(other, workers=1, report=Silent()).read(files)
