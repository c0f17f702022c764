"""Digests remembered by path and stamp: never a wrong one for a file that changed."""

import hashlib
import mmap
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from tlcli.features import memo as module
from tlcli.features.memo import Memo
from tlcli.features.parts import write_part
from tlcli.images.worker import DecodeOptions, read_image

LONG_AGO = 1_600_000_000 * 10**9
LATER = 3 * 10**9


def write(path, content=b"content", modified=LONG_AGO):
    Path(path).write_bytes(content)
    os.utime(path, ns=(modified, modified))
    return str(path)


def remember(memo, *paths):
    for path in paths:
        image = read_image(path, DecodeOptions())
        memo.remember(path, image._replace(read=image.read + LATER))  # as if it was written three seconds ago


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


def swap(path):
    """Exchange two files of the same size and modification time, by renaming."""
    other = write(f"{path}.other", b"CONTENT")
    Path(path).rename(f"{path}.old")
    Path(other).rename(path)


def copy_over(path, copy):
    """Replace the bytes by those of another file of the same size and modification time."""
    copy(write(f"{path}.other", b"CONTENT"), path)


def restore(path):
    """Do what `rsync -t` does: write a new file, set its modification time, and rename it."""
    Path(write(f"{path}.other", b"CONTENT")).rename(path)


def rewrite_through_link(path):
    """Rewrite the bytes under another name, and restore the modification time."""
    os.link(path, f"{path}.link")
    write(f"{path}.link", b"CONTENT")


def map_and_write(path):
    """Change the bytes through a memory map, and restore the modification time."""
    with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        content[:] = b"CONTENT"
    os.utime(path, ns=(LONG_AGO, LONG_AGO))


def exchange_by_symbolic_link(path):
    """Replace the file by a symbolic link to another one."""
    other = write(f"{path}.other", b"CONTENT")
    Path(path).unlink()
    Path(path).symlink_to(other)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: write(path, b"other content"),
        lambda path: write(path, b"CONTENT", LONG_AGO + 1000),
        lambda path: write(path, b"CONTENT", LONG_AGO - 10**9),
        lambda path: write(path, b"CONTENT"),
        swap,
        lambda path: copy_over(path, shutil.copy2),
        lambda path: copy_over(path, lambda source, target: subprocess.run(["cp", "-p", source, target], check=True)),
        restore,
        rewrite_through_link,
        map_and_write,
        exchange_by_symbolic_link,
        os.unlink,
    ],
    ids=[
        "size", "later", "earlier", "old time", "mv", "copy2", "cp -p", "rsync -t", "hard link", "mmap", "link", "gone",
    ],
)  # fmt: skip
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


@pytest.mark.parametrize(
    ("stamp", "remembered"),
    [
        ({"modified": 0}, False),
        ({"modified": -0.5}, False),
        ({"modified": 3600}, False),
        ({"modified": -2.1, "changed": -2.1}, True),
        ({"changed": -0.01}, False),
        ({"changed": -0.2}, True),
        ({"changed": 3600}, False),
    ],
)
def test_a_file_that_may_still_be_changing_is_not_remembered(root, image, report, stamp, remembered):
    """Seconds are relative to the time of reading."""
    found = read_image(image, DecodeOptions())
    read = 1_700_000_000_123_456_789
    times = {"modified": LONG_AGO, "changed": LONG_AGO + 1}
    times |= {name: read + int(seconds * 1e9) for name, seconds in stamp.items()}
    memo = Memo(root, report)
    memo.remember(image, found._replace(read=read, stamp=found.stamp._replace(**times)))
    assert bool(memo.new) is remembered


def test_a_file_system_without_fractions_of_a_second_is_trusted_two_seconds_later(root, image, report):
    found = read_image(image, DecodeOptions())
    changed = 1_700_000_000 * 10**9
    for seconds, remembered in ((1.9, False), (2.1, True)):
        memo = Memo(root, report)
        stamp = found.stamp._replace(changed=changed)
        memo.remember(image, found._replace(read=changed + int(seconds * 1e9), stamp=stamp))
        assert bool(memo.new) is remembered


def test_a_memo_of_another_version_is_ignored_and_replaced(root, image, report):
    old = pa.table({"path": pa.array([os.fsencode(image)]), "size": [7], "modified": [LONG_AGO], "digest": [b"0" * 32]})
    (root / "memo").mkdir(parents=True)
    write_part(root / "memo", old)
    memo = Memo(root, report)
    assert memo.digest(image) is None
    remember(memo, image)
    memo.save()
    assert len(list((root / "memo").glob("part-*"))) == 1
    assert Memo(root, report).digest(image) == hashlib.sha256(b"content").digest()
    assert report.warnings == []


def test_files_read_on_another_machine_get_the_device_number_of_this_one(root, image, report):
    there = Memo(None, report)
    found = read_image(image, DecodeOptions())
    there.remember(image, found._replace(read=found.read + LATER, stamp=found.stamp._replace(device=999)))
    memo = Memo(root, report)
    memo.take(there.new)
    assert memo.digest(image) == hashlib.sha256(b"content").digest()
    write(image, b"CONTENT")
    memo.take(there.new)
    assert memo.digest(image) is None


def test_a_time_after_2262_is_remembered_exactly(root, image, report):
    found = read_image(image, DecodeOptions())
    memo = Memo(root, report)
    memo.remember(image, found._replace(read=2**64, stamp=found.stamp._replace(modified=2**63 + 5)))
    assert memo.new[os.fsencode(image)][0] == found.stamp._replace(modified=2**63 + 5).pack()


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
    one, two = Memo(root, report), Memo(root, report)  # both will merge, each unaware of the other
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
