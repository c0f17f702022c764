"""The rows of predict: three formats that say the same, and a journal that survives a cut anywhere."""

import csv
import io
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tlcli.errors import ArtifactError, MachineError, UsageError
from tlcli.inference.journal import Journal, journal_path
from tlcli.inference.output import check_output
from tlcli.inference.row_files import write_csv
from tlcli.inference.rows import row_columns

NAMES = row_columns(["cat", "dog"], top=2, probabilities=True)
ROWS = [
    ["a.jpg", "cat", 0.1 + 0.2, "ok", None, "dog", 1 / 3, 2 / 3, 1e-9],
    ['new\nline, "quoted" \'n é🚗.jpg', "dog", 0.5, "review", None, "cat", 0.5, 0.5, 0.5],
    ["carriage\rreturn.jpg", "dog", 1.0, "ok", None, "cat", 0.0, 0.0, 1.0],
    ["broken.jpg", None, None, "failed", "truncated, sort of", None, None, None, None],
    ["\ttab ", "cat", 1.0, "ok", None, "dog", 0.0, 1.0, 0.0],
]
SIGNATURE = {"run": "0123", "inputs": ["photos"], "top": 2}


def write(out, rows, *, resume=False, signature=SIGNATURE):
    with Journal(out, signature, resume=resume) as journal:
        journal.add(rows[journal.done :])
        journal.finish(NAMES)


def read(path):
    """Rows as dictionaries of text, float and None, whatever the format."""
    match path.suffix:
        case ".parquet":
            return pq.read_table(path).to_pylist()
        case ".jsonl":
            return [json.loads(line) for line in path.read_bytes().splitlines()]
        case _:
            with path.open(newline="", encoding="utf8") as file:
                return [
                    {
                        name: None if value == "" else float(value) if name[:2] in {"co", "p:"} else value
                        for name, value in row.items()
                    }
                    for row in csv.DictReader(file)
                ]


def test_the_columns_are_those_of_the_contract():
    assert row_columns(["cat", "dog"], top=1, probabilities=False) == ["path", "label", "confidence", "status", "error"]
    assert NAMES[5:] == ["label_2", "confidence_2", "p:cat", "p:dog"]
    assert row_columns(["cat", "dog"], top=9, probabilities=False)[5:] == ["label_2", "confidence_2"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_every_format_carries_the_same_rows(tmp_path, form):
    out = tmp_path / f"out.{form}"
    write(out, ROWS)
    assert read(out) == [dict(zip(NAMES, row, strict=True)) for row in ROWS]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_no_rows(tmp_path, form):
    write(tmp_path / f"out.{form}", [])
    assert read(tmp_path / f"out.{form}") == []


def test_the_types_of_a_parquet_file_do_not_depend_on_the_rows(tmp_path):
    write(tmp_path / "one.parquet", ROWS)
    write(tmp_path / "two.parquet", [ROWS[3]])
    assert pq.read_schema(tmp_path / "one.parquet").equals(pq.read_schema(tmp_path / "two.parquet"))


def test_csv_for_standard_output():
    file = io.StringIO(newline="")
    write_csv(file, ["path", "label"], [["a", "cat"]], header=True)
    write_csv(file, ["path", "label"], [["b", None]], header=False)
    assert file.getvalue() == "path,label\na,cat\nb,\n"


def test_a_journal_cut_at_any_byte_goes_on_to_the_same_file(tmp_path):
    out = tmp_path / "out.csv"
    write(out, ROWS)
    expected = out.read_bytes()
    with Journal(out, SIGNATURE, resume=False) as journal:
        journal.add(ROWS)
    whole = journal_path(out).read_bytes()
    for length in range(len(whole) + 1):
        journal_path(out).write_bytes(whole[:length])
        with Journal(out, SIGNATURE, resume=True) as journal:
            assert list(journal.rows()) == ROWS[: journal.done]
            journal.add(ROWS[journal.done :])
            assert journal_path(out).read_bytes() == whole
            if length % 50 == 0:  # syncing to disk takes its time
                journal.finish(NAMES)
                assert out.read_bytes() == expected
                assert not journal_path(out).exists()


def test_rows_are_in_the_journal_as_soon_as_they_are_added(tmp_path):
    out = tmp_path / "out.csv"
    with Journal(out, SIGNATURE, resume=False) as journal:
        journal.add(ROWS[:2])
        assert [json.loads(line[17:]) for line in journal_path(out).read_text().splitlines()[1:]] == ROWS[:2]
        with pytest.raises(MachineError, match=f"process {os.getpid()} is writing"):
            Journal(out, SIGNATURE, resume=False)
        assert list(journal.rows()) == ROWS[:2], "the other one harmed nothing"
        journal.add(ROWS[2:3])
        assert list(journal.rows()) == ROWS[:3]
        journal.add(ROWS[3:4])  # after a read
        assert list(journal.rows()) == ROWS[:4]
    assert not out.exists()


def test_nothing_to_go_on_with_is_a_beginning(tmp_path):
    with Journal(tmp_path / "out.csv", SIGNATURE, resume=True) as journal:
        assert journal.done == 0


def test_starting_again_forgets_the_journal(tmp_path):
    with Journal(tmp_path / "out.csv", SIGNATURE, resume=False) as journal:
        journal.add(ROWS)
    with Journal(tmp_path / "out.csv", SIGNATURE | {"top": 3}, resume=False) as journal:
        assert journal.done == 0
        assert list(journal.rows()) == []


def test_a_journal_of_something_else_is_refused_and_kept(tmp_path):
    out = tmp_path / "out.csv"
    with Journal(out, SIGNATURE, resume=False) as journal:
        journal.add(ROWS)
    before = journal_path(out).read_bytes()
    with pytest.raises(ArtifactError, match=r"other inputs or options \(inputs, top\)"):
        Journal(out, SIGNATURE | {"top": 1, "inputs": ["others"]}, resume=True)
    assert journal_path(out).read_bytes() == before


def test_an_output_is_there_only_when_it_is_whole(tmp_path, full_disk):
    out = tmp_path / "out.jsonl"
    write(out, ROWS[:1])
    before = out.read_bytes()
    with Journal(out, SIGNATURE, resume=False) as journal:
        journal.add(ROWS * 10)
        with pytest.raises(OSError), full_disk(3000):
            journal.finish(NAMES)
    assert out.read_bytes() == before
    write(out, ROWS * 10, resume=True)
    assert len(read(out)) == 50
    with full_disk(100), pytest.raises(OSError) as full:
        write(tmp_path / "other.jsonl", ROWS * 10)
    assert full.value.filename == str(tmp_path / "other.jsonl")


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("out.txt", {}, r"expected a name ending in .csv"),
        ("out", {}, r"expected a name ending in .csv"),
        ("folder.csv", {"overwrite": True}, "is a folder"),
        ("there.csv", {}, "exists.*--overwrite"),
        ("nowhere/out.csv", {}, "does not exist"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_anything_is_done(tmp_path, name, flags, message):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(UsageError, match=message):
        check_output(tmp_path / name, tmp_path / "run", (), **{"overwrite": False, "resume": False} | flags)


@pytest.mark.parametrize("flag", ["overwrite", "resume"])
def test_an_output_that_may_be_replaced(tmp_path, flag):
    (tmp_path / "there.CSV").write_text("mine")
    check_output(tmp_path / "there.CSV", tmp_path / "run", (), **{"overwrite": False, "resume": False} | {flag: True})
    check_output(Path("new.csv"), Path("run"), (), overwrite=False, resume=False)
