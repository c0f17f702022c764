"""The output folder appears complete or not at all."""

import os
import subprocess
import sys

import pytest

from tlcli.errors import MachineError, UsageError
from tlcli.insight.units.output_folder import inspect_folder, sheet_name


def test_a_failure_leaves_no_partial_folder(tmp_path):
    def fail():
        with inspect_folder(tmp_path / "out").publish(replace=False) as folder:
            (folder / "units.jsonl").write_text("half")
            assert not (tmp_path / "out").exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_error_names_the_folder(tmp_path, full_disk):
    with (
        full_disk(1000),
        pytest.raises(OSError) as full,
        inspect_folder(tmp_path / "out").publish(replace=False) as folder,
    ):
        (folder / "units.jsonl").write_bytes(bytes(5000))
    assert full.value.filename == str(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    out = tmp_path / "out"
    for text in ("first", "second"):
        with inspect_folder(out).publish(replace=True) as folder:
            (folder / "units.jsonl").write_text(text)
            (folder / sheet_name(3, "blocks.1/x y")).write_text(text)
    assert (out / "units.jsonl").read_text() == "second"
    assert sorted(os.listdir(out)) == ["layer-03-blocks.1_x_y.png", "units.jsonl"]  # noqa: PTH208
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_created_during_the_run_are_not_replaced(tmp_path):
    def write():
        with inspect_folder(tmp_path / "out").publish(replace=True) as folder:
            (folder / "units.jsonl").write_text("new")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "mine.txt").write_text("mine")

    with pytest.raises(UsageError, match=r"mine\.txt"):
        write()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        inspect_folder(tmp_path / "out").check(replace=True)


KILLED = """
import os, sys
from pathlib import Path
from tlcli.insight.units import output_folder
if sys.argv[2] == "swapping":
    rename = Path.rename
    def once(self, target):
        rename(self, target)
        os.kill(os.getpid(), 9)
    Path.rename = once
with output_folder.inspect_folder(Path(sys.argv[1])).publish(replace=True) as staging:
    (staging / "units.jsonl").write_text("half")
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("when", ["writing", "swapping"])
def test_leftovers_of_a_killed_process_are_removed_by_the_next_one(when, tmp_path):
    out = tmp_path / "out"
    with inspect_folder(out).publish(replace=False) as folder:
        (folder / "units.jsonl").write_text("first")
    assert subprocess.run([sys.executable, "-c", KILLED, out, when], check=False).returncode == -9
    assert len(list(tmp_path.iterdir())) > 1
    with pytest.raises(UsageError, match="not empty"):
        inspect_folder(out).check(replace=False)
    with inspect_folder(out).publish(replace=True) as folder:
        assert (out / "units.jsonl").read_text() == "first"
        (folder / "units.jsonl").write_text("second")
    assert (out / "units.jsonl").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_concurrent_writers_are_refused(tmp_path):
    with inspect_folder(tmp_path / "out").publish(replace=False), pytest.raises(MachineError, match="is locked"):
        inspect_folder(tmp_path / "out").publish(replace=False).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_foreign_folder_with_the_staging_name_is_not_removed(tmp_path):
    (tmp_path / ".out.new").mkdir()
    (tmp_path / ".out.new" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        inspect_folder(tmp_path / "out").publish(replace=True).__enter__()
    assert (tmp_path / ".out.new" / "thesis.tex").read_text() == "mine"
