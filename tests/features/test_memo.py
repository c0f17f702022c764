"""Digests remembered by path, size and time of change: never a wrong one for a file that changed."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from tlcli.features import memo as module
from tlcli.features.memo import Memo
from tlcli.images.worker import DecodeOptions, read_image

LONG_AGO = 1_600_000_000 * 10**9


def write(path, content=b"content", modified=LONG_AGO):
    Path(path).write_bytes(content)
    os.utime(path, ns=(modified, modified))
    return str(path)


def remember(memo, *paths):
    for path in paths:
        memo.remember(path, read_image(path, DecodeOptions()))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def image(tmp_path):
    return write(tmp_path / "a.jpg")


def test_an_unchanged_file_is_remembered_across_sessions(root, image, report):
    memo = Memo(root, report)
    assert memo.digest(image) is None
    remember(memo, image)
    expected = hashlib.sha256(b"content").digest()
    assert memo.digest(image) == expected
    memo.save()
    assert Memo(root, report).digest(image) == expected


def test_unsaved_entries_are_forgotten(root, image, report):
    remember(Memo(root, report), image)
    assert Memo(root, report).digest(image) is None


def test_without_a_root_nothing_is_written(tmp_path, image, report):
    memo = Memo(None, report)
    remember(memo, image)
    memo.save()
    assert memo.digest(image) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: write(path, b"other content"),
        lambda path: write(path, b"CONTENT", LONG_AGO + 1000),
        lambda path: write(path, b"CONTENT", LONG_AGO - 10**9),
        os.unlink,
    ],
    ids=["size", "later", "earlier", "gone"],
)
def test_a_changed_file_is_not(root, image, report, change):
    memo = Memo(root, report)
    remember(memo, image)
    memo.save()
    change(image)
    assert memo.digest(image) is None
    assert Memo(root, report).digest(image) is None


def test_a_file_that_was_changed_and_read_again_has_its_new_digest(root, image, report):
    memo = Memo(root, report)
    for content in (b"one", b"twice as much"):
        write(image, content)
        remember(memo, image)
        memo.save()
    for opened in (memo, Memo(root, report)):
        assert opened.digest(image) == hashlib.sha256(b"twice as much").digest()


@pytest.mark.parametrize("age", [0, 0.5, -3600])
def test_a_file_that_may_still_be_changing_is_not_remembered(root, image, report, age):
    write(image, modified=time.time_ns() - int(age * 1e9))
    memo = Memo(root, report)
    remember(memo, image)
    assert memo.digest(image) is None


def test_a_file_that_could_not_be_read_is_not_remembered(root, tmp_path, report):
    memo = Memo(root, report)
    remember(memo, str(tmp_path / "missing.jpg"))
    write(tmp_path / "missing.jpg")
    assert memo.digest(str(tmp_path / "missing.jpg")) is None


def test_a_path_is_known_however_it_is_written(root, image, report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    memo = Memo(root, report)
    remember(memo, "a.jpg")
    assert memo.digest(image) == memo.digest("./a.jpg") == hashlib.sha256(b"content").digest()


def test_a_path_that_is_not_utf8(root, tmp_path, report):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.jpg")
    write(odd)
    memo = Memo(root, report)
    remember(memo, odd)
    memo.save()
    assert Memo(root, report).digest(odd) == hashlib.sha256(b"content").digest()


def test_many_small_parts_become_one(root, tmp_path, report):
    paths = [write(tmp_path / f"{number}.jpg", str(number).encode()) for number in range(module.MOST_PARTS + 8)]
    for path in paths:
        memo = Memo(root, report)
        remember(memo, path)
        memo.save()
    memo = Memo(root, report)
    assert len(list((root / "memo").glob("part-*"))) <= module.MOST_PARTS
    for number, path in enumerate(paths):
        assert memo.digest(path) == hashlib.sha256(str(number).encode()).digest()
    assert report.warnings == []


def test_merging_keeps_what_another_process_wrote_meanwhile(root, tmp_path, report):
    for number in range(module.MOST_PARTS):
        memo = Memo(root, report)
        remember(memo, write(tmp_path / f"{number}.jpg"))
        memo.save()
    one, two = Memo(root, report), Memo(root, report)  # both will merge, each knowing nothing of the other
    for memo, name in ((one, "one.jpg"), (two, "two.jpg")):
        remember(memo, write(tmp_path / name, name.encode()))
        memo.save()
    memo = Memo(root, report)
    for name in ("one.jpg", "two.jpg"):
        assert memo.digest(str(tmp_path / name)) == hashlib.sha256(name.encode()).digest()
    assert memo.digest(str(tmp_path / "0.jpg")) is not None


def test_a_damaged_part_costs_a_second_reading_and_nothing_else(root, tmp_path, report):
    paths = [write(tmp_path / f"{number}.jpg") for number in range(2)]
    for path in paths:
        memo = Memo(root, report)
        remember(memo, path)
        memo.save()
    part = min((root / "memo").glob("part-*"))
    part.write_bytes(part.read_bytes()[:-5])
    memo = Memo(root, report)
    assert memo.digest(paths[0]) is None
    assert memo.digest(paths[1]) is not None
    assert [warning for warning in report.warnings if str(part) in warning]
    remember(memo, paths[0])
    memo.save()
    assert Memo(root, report).digest(paths[0]) is not None
