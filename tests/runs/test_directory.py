"""The directory of a run while it is written: overwriting, resuming, recovering, and locking."""

import os
import shutil

import pytest

from tlcli.errors import MachineError, UsageError
from tlcli.runs.directory import (
    CHECKPOINTS,
    UNFINISHED,
    check_run_output,
    free_name,
    new_run,
    recover_run,
    unfinished_run,
)
from tlcli.runs.run import load_run


def test_a_new_run(tmp_path, info, write):
    with new_run(tmp_path / "in" / "run", overwrite=False) as directory:
        write(directory, info)
    assert load_run(tmp_path / "in" / "run").layer == 3


def test_an_interrupted_run_without_checkpoints_is_removed(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_run(tmp_path / "run", overwrite=False):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_overwriting_replaces_the_old_run_completely(run, info, write):
    (run / ".report.html.abc.tmp").write_bytes(b"left by a killed process")
    with new_run(run, overwrite=True) as directory:
        write(directory, info | {"temperature": 2.0})
        assert load_run(run).temperature == 1.25
    assert load_run(run).temperature == 2.0
    assert not (run / ".report.html.abc.tmp").exists()
    assert [path.name for path in run.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt])
def test_an_exception_keeps_the_old_run(run, info, problem, write):
    def interrupted():
        with new_run(run, overwrite=True) as directory:
            write(directory, info | {"temperature": 2.0})
            raise problem

    with pytest.raises(problem):
        interrupted()
    assert load_run(run).temperature == 1.25
    assert [path.name for path in run.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("left", [".run.new", ".run.old"])
def test_leftovers_of_a_killed_process_are_removed(run, info, left, write):
    shutil.copytree(run, run.with_name(left))
    with new_run(run, overwrite=True) as directory:
        write(directory, info | {"temperature": 2.0})
    assert load_run(run).temperature == 2.0
    assert [path.name for path in run.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("names", [["thesis.tex"], ["config.json", "thesis.tex"], ["config.json", "src/main.py"]])
def test_overwriting_refuses_other_directories(tmp_path, names):
    for name in names:
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    with pytest.raises(UsageError, match=r"is not a run|not part of a run"), new_run(tmp_path / "mine", overwrite=True):
        pass
    assert all((tmp_path / "mine" / name).read_text() == "{}" for name in names)


def test_an_unfinished_run_can_be_overwritten(run, info, write):
    (run / "run.json").unlink()
    (run / UNFINISHED).touch()
    with new_run(run, overwrite=True) as directory:
        write(directory, info)
    assert load_run(run).layer == 3


def test_an_empty_directory_is_accepted(tmp_path):
    (tmp_path / "run").mkdir()
    check_run_output(tmp_path / "run", overwrite=False)


def test_existing_outputs_are_refused(tmp_path, run):
    with pytest.raises(UsageError, match="--overwrite"):
        check_run_output(run, overwrite=False)
    with pytest.raises(UsageError, match="is a file"):
        check_run_output(run / "run.json", overwrite=True)


def test_free_name_numbers_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "labels.csv").touch()
    names = [str(free_name(tmp_path / "photos"))]
    for _ in range(2):
        (tmp_path / names[-1]).mkdir(parents=True)
        names.append(str(free_name(tmp_path / "photos")))
    assert names == ["runs/photos", "runs/photos-2", "runs/photos-3"]
    assert str(free_name(tmp_path / "labels.csv")) == "runs/labels"
    monkeypatch.chdir(tmp_path / "photos")
    assert free_name(tmp_path / "photos" / ".").name == "photos"


def test_checkpoints_are_resumed_and_removed_at_the_end(tmp_path, info, write):
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt) as stopped, new_run(out, overwrite=False) as directory:  # noqa: PT012
        (directory / CHECKPOINTS).mkdir()
        (directory / CHECKPOINTS / "origin.json").write_text("{}")
        (directory / CHECKPOINTS / "state").write_text("half")
        raise KeyboardInterrupt
    assert f"--out {out} --resume" in stopped.value.__notes__[0]
    with pytest.raises(UsageError, match="unfinished run"):
        check_run_output(out, overwrite=False)
    with new_run(out, overwrite=False, resume=True) as directory:
        assert (directory / CHECKPOINTS / "state").read_text() == "half"
        write(directory, info)
    assert not (out / CHECKPOINTS).exists()
    assert load_run(out).layer == 3


def test_an_interrupted_overwrite_resumes_beside_the_old_run(run, info, write):
    with pytest.raises(KeyboardInterrupt), new_run(run, overwrite=True) as directory:  # noqa: PT012
        (directory / CHECKPOINTS).mkdir()
        raise KeyboardInterrupt
    assert load_run(run).layer == 3
    assert unfinished_run(run) == directory
    with new_run(run, overwrite=False, resume=True) as again:
        assert again == directory
        write(again, info | {"temperature": 2.0})
    assert load_run(run).temperature == 2.0
    assert unfinished_run(run) is None


def test_overwriting_again_discards_checkpoints(run):
    with pytest.raises(KeyboardInterrupt), new_run(run, overwrite=True) as directory:  # noqa: PT012
        (directory / CHECKPOINTS).mkdir()
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), new_run(run, overwrite=True) as directory:  # noqa: PT012
        assert not (directory / CHECKPOINTS).exists()
        raise KeyboardInterrupt


def test_recover_completes_an_overwrite_that_was_killed_before_the_rename(run, info, write):
    staged = run.with_name(".run.new")
    write(staged, info | {"temperature": 2.0})
    recover_run(run)
    assert load_run(run).temperature == 2.0
    assert not staged.exists()


def test_recover_removes_checkpoints_of_a_finished_run(run):
    (run / CHECKPOINTS).mkdir()
    (run / CHECKPOINTS / "notes.txt").write_text("mine")
    recover_run(run)
    assert (run / CHECKPOINTS).exists(), "not written by tlcli"
    (run / CHECKPOINTS / "origin.json").write_text("{}")
    recover_run(run)
    assert not (run / CHECKPOINTS).exists()


def test_a_run_has_one_writer_at_a_time(tmp_path, info, write):
    out = tmp_path / "run"
    with new_run(out, overwrite=False) as directory:
        for overwrite in (False, True):  # the message is not about an unfinished run, which could be resumed
            with pytest.raises(MachineError, match=f"is locked: process {os.getpid()} is writing"):
                check_run_output(out, overwrite=overwrite)
        write(directory, info)
        with pytest.raises(MachineError, match=f"process {os.getpid()} is writing"), new_run(out, overwrite=True):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
