"""A table that rows are appended to: complete, synced, and intact after a kill or a failed write."""

from __future__ import annotations

import csv
import os

import pytest

from tlcli.errors import DataError
from tlcli.storage import appended_table
from tlcli.storage.appended_table import AppendedTable

COLUMNS = ("path", "label")
ROWS = [("a.jpg", "car"), ('comma, "quote".jpg', "two\nlines"), ("return\r.jpg", "é|;")]


def content(path):
    with path.open(encoding="utf8", newline="") as file:
        return [tuple(row) for row in csv.reader(file)]


def test_rows_are_read_back_by_any_reader_of_csv(tmp_path):
    path = tmp_path / "t.csv"
    table = AppendedTable(path, COLUMNS)
    assert not path.exists()
    for row in ROWS:
        table.append([row])
    assert content(path) == [COLUMNS, *ROWS]
    assert AppendedTable(path, COLUMNS).rows == ROWS


@pytest.mark.parametrize("lost", range(1, 12))
def test_a_row_written_in_part_is_dropped(tmp_path, lost):
    path = tmp_path / "t.csv"
    table = AppendedTable(path, COLUMNS)
    table.append(ROWS[:2])
    path.write_bytes(path.read_bytes()[:-lost])
    again = AppendedTable(path, COLUMNS)
    assert again.rows == ROWS[:1]
    again.append(ROWS[2:])
    assert content(path) == [COLUMNS, ROWS[0], ROWS[2]]


def test_after_a_failed_write_the_next_one_continues_the_complete_rows(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    table = AppendedTable(path, COLUMNS)
    table.append(ROWS[:1])
    write = os.write

    def half(descriptor, data):
        write(descriptor, bytes(data)[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(appended_table.os, "write", half)
    with pytest.raises(OSError, match="No space") as caught:
        table.append(ROWS[1:2])
    assert caught.value.filename == str(path)
    monkeypatch.setattr(appended_table.os, "write", write)
    table.append(ROWS[2:])
    assert content(path) == [COLUMNS, ROWS[0], ROWS[2]]


def test_rows_are_synced_before_append_returns(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(appended_table.os, "fsync", lambda descriptor: (synced.append(descriptor), real(descriptor)))
    table = AppendedTable(tmp_path / "t.csv", COLUMNS)
    table.append(ROWS[:1])
    assert synced


def test_replacing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    table = AppendedTable(path, COLUMNS)
    table.append(ROWS)
    table.replace(ROWS[:1])
    assert content(path) == [COLUMNS, ROWS[0]]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            table.replace(ROWS)
    table.append(ROWS[1:2])
    assert content(path) == [COLUMNS, *ROWS[:2]]


@pytest.mark.parametrize(
    ("text", "found"),
    [("path,class\na,b\n", "columns are path, class"), ("path,label\na\n", "row 1 has 1 values"), ("\n", "columns")],
)
def test_another_table_is_refused(tmp_path, text, found):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=found):
        AppendedTable(path, COLUMNS)
    assert path.read_text() == text


@pytest.mark.parametrize("change", ["path,label\n", None, "path,label\na.jpg,a longer label\n"])
@pytest.mark.parametrize("write", [AppendedTable.append, AppendedTable.replace])
def test_a_table_that_another_program_changed_is_refused(tmp_path, write, change):
    path = tmp_path / "t.csv"
    table = AppendedTable(path, COLUMNS)
    table.append(ROWS)
    path.unlink()
    if change is not None:
        path.write_text(change)
    with pytest.raises(DataError, match="changed by another program"):
        write(table, ROWS)
    assert (path.read_text() if path.exists() else None) == change


def test_complete_rows_of_a_failed_write_do_not_count(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    table = AppendedTable(path, COLUMNS)
    table.append(ROWS[:1])
    with monkeypatch.context() as patch:
        patch.setattr(appended_table.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            table.append(ROWS[1:])
    assert AppendedTable(path, COLUMNS).rows == ROWS[:1]


def test_links_and_permissions_are_kept(tmp_path):
    path, link = tmp_path / "t.csv", tmp_path / "link.csv"
    path.touch(0o600)
    link.symlink_to(path)
    table = AppendedTable(link, COLUMNS)
    table.append(ROWS)
    table.replace(ROWS[:1])
    assert link.is_symlink()
    assert content(path) == [COLUMNS, ROWS[0]]
    assert path.stat().st_mode & 0o777 == 0o600
