"""The journal: resuming after truncation at any byte, checksums, locking, and atomic output."""

import json
import os

import pytest

from tlcli.errors import ArtifactError, MachineError
from tlcli.inference.journal import Journal, journal_path
from tlcli.inference.row_files import read_rows

NAMES = ["path", "label", "confidence", "status", "error", "label_2", "confidence_2", "p:cat", "p:dog"]
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


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_only_the_output_remains(tmp_path, form):
    out = tmp_path / f"out.{form}"
    write(out, ROWS)
    assert [row["path"] for row in read_rows(out)] == [row[0] for row in ROWS]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_resumes_after_truncation_at_any_byte(tmp_path):
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
            if length % 50 == 0:  # syncing to disk is slow
                journal.finish(NAMES)
                assert out.read_bytes() == expected
                assert not journal_path(out).exists()


def test_rows_are_written_when_they_are_added(tmp_path):
    out = tmp_path / "out.csv"
    with Journal(out, SIGNATURE, resume=False) as journal:
        journal.add(ROWS[:2])
        assert [json.loads(line[17:]) for line in journal_path(out).read_text().splitlines()[1:]] == ROWS[:2]
        with pytest.raises(MachineError, match=f"process {os.getpid()} is writing"):
            Journal(out, SIGNATURE, resume=False)
        assert list(journal.rows()) == ROWS[:2], "the refused journal changed nothing"
        journal.add(ROWS[2:3])
        assert list(journal.rows()) == ROWS[:3]
        journal.add(ROWS[3:4])  # after a read
        assert list(journal.rows()) == ROWS[:4]
    assert not out.exists()


def test_resume_without_a_journal_starts_a_new_one(tmp_path):
    with Journal(tmp_path / "out.csv", SIGNATURE, resume=True) as journal:
        assert journal.done == 0


def test_without_resume_the_journal_is_discarded(tmp_path):
    with Journal(tmp_path / "out.csv", SIGNATURE, resume=False) as journal:
        journal.add(ROWS)
    with Journal(tmp_path / "out.csv", SIGNATURE | {"top": 3}, resume=False) as journal:
        assert journal.done == 0
        assert list(journal.rows()) == []


def test_a_journal_with_another_signature_is_refused_and_kept(tmp_path):
    out = tmp_path / "out.csv"
    with Journal(out, SIGNATURE, resume=False) as journal:
        journal.add(ROWS)
    before = journal_path(out).read_bytes()
    with pytest.raises(ArtifactError, match=r"other inputs or options \(inputs, top\)"):
        Journal(out, SIGNATURE | {"top": 1, "inputs": ["others"]}, resume=True)
    assert journal_path(out).read_bytes() == before


def test_the_output_is_replaced_only_when_complete(tmp_path, full_disk):
    out = tmp_path / "out.jsonl"
    write(out, ROWS[:1])
    before = out.read_bytes()
    with Journal(out, SIGNATURE, resume=False) as journal:
        journal.add(ROWS * 10)
        with pytest.raises(OSError), full_disk(3000):
            journal.finish(NAMES)
    assert out.read_bytes() == before
    write(out, ROWS * 10, resume=True)
    assert len(list(read_rows(out))) == 50
    with full_disk(100), pytest.raises(OSError) as full:
        write(tmp_path / "other.jsonl", ROWS * 10)
    assert full.value.filename == str(tmp_path / "other.jsonl")
