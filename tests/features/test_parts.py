"""Part files: whole, checked, in order."""

import random

import pyarrow as pa
import pytest

from tlcli.features.parts import PREFIX, read_parts, write_part
from tlcli.storage.publish import remove_temporary_files


def table(*values):
    return pa.table({"value": pa.array(values, pa.int64())})


def read(directory):
    damaged = []
    tables = [part.table for _, part in read_parts(directory, damaged.append)]
    return [table["value"].to_pylist() for table in tables], damaged


def test_parts_come_back_in_the_order_in_which_they_were_written(tmp_path):
    paths = [write_part(tmp_path, table(number)) for number in range(12)]
    assert read(tmp_path) == ([[number] for number in range(12)], [])
    assert sorted(paths) == paths
    assert sorted([path.name for path in tmp_path.iterdir()]) == [path.name for path in paths]


def test_the_same_table_twice_is_two_parts(tmp_path):
    assert write_part(tmp_path, table(1)) != write_part(tmp_path, table(1))
    assert read(tmp_path) == ([[1], [1]], [])


def test_a_part_can_be_opened_by_arrow(tmp_path):
    with pa.memory_map(str(write_part(tmp_path, table(1, 2)))) as file:
        assert pa.ipc.open_file(file).read_all().equals(table(1, 2))


def test_any_flipped_byte_is_noticed(tmp_path):
    path = write_part(tmp_path, table(1, 2, 3))
    write_part(tmp_path, table(4))
    whole = path.read_bytes()
    draw = random.Random(0)
    for offset in range(len(whole)):
        flipped = bytearray(whole)
        flipped[offset] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        assert read(tmp_path) == ([[4]], [path])
    path.write_bytes(whole)
    assert read(tmp_path) == ([[1, 2, 3], [4]], [])


def test_any_truncation_is_noticed(tmp_path):
    path = write_part(tmp_path, table(1, 2, 3))
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 13), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert read(tmp_path) == ([], [path])
    path.write_bytes(whole + b"\0")
    assert read(tmp_path) == ([], [path])


def test_a_number_is_not_used_again_while_its_part_is_there(tmp_path):
    first, second = (write_part(tmp_path, table(number)) for number in range(2))
    first.unlink()
    third = write_part(tmp_path, table(2))
    assert sorted([second, third]) == [second, third]
    assert read(tmp_path) == ([[1], [2]], [])


def test_other_files_are_not_taken_for_parts(tmp_path):
    path = write_part(tmp_path, table(1))
    for name in ("part-1-abc.arrow", "part-000002.arrow", "notes.txt", f"{path.name}.bak", f".{path.name}"):
        (tmp_path / name).write_bytes(path.read_bytes())
    assert read(tmp_path) == ([[1]], [])


def test_no_folder_holds_no_parts(tmp_path):
    assert read(tmp_path / "nowhere") == ([], [])


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    path = write_part(tmp_path, table(1))
    (tmp_path / ".part-abc123.tmp").write_bytes(b"half a par")
    (tmp_path / "mine.tmp").write_bytes(b"")
    assert read(tmp_path) == ([[1]], [])
    remove_temporary_files(tmp_path, PREFIX)
    assert sorted([path.name for path in tmp_path.iterdir()]) == sorted(["mine.tmp", path.name])


def test_a_full_disk_leaves_no_part(tmp_path, full_disk):
    path = write_part(tmp_path, table(1))
    with pytest.raises(OSError), full_disk(2000):
        write_part(tmp_path, table(*range(10_000)))
    assert [path.name for path in tmp_path.iterdir()] == [path.name]
