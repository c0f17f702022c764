"""Two commands at once, stale locks, read-only folders, and file systems without locks."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from fault_outcomes import message_problem
from fault_results import features_in, files_in, run_in
from fault_trials import DISK, DONE, NETWORK, QUICK, READ_ONLY, SOME_FAILED, TAIL

from tlcli.storage.locks import LockHeldError, locked

NO_LOCKS = [
    pytest.param(errno.ENOLCK, id="ENOLCK"),
    pytest.param(errno.ENOSYS, id="ENOSYS", marks=pytest.mark.slow),
    pytest.param(errno.EOPNOTSUPP, id="EOPNOTSUPP", marks=pytest.mark.slow),
]


def cache_features(images, cache, *more):
    return ["cache-features", str(images), "--cache", str(cache), *QUICK, *more]


@pytest.mark.slow
def test_two_writers_of_one_cache_write_the_same_as_one(trials, two_servers, images, draw, tmp_path):
    """Both processes run at once on overlapping datasets, several times."""
    more = tmp_path / "more"
    shutil.copytree(images, more)
    for number in range(8):
        draw(more / "train" / "cat" / f"new{number}.png", seed=100 + number, size=(32, 32))
    with trials.trial(tmp_path) as (server, folder):
        assert server.run(cache_features(more, folder / "one"), folder).code == DONE
        expected = features_in(folder / "one")
    assert len(expected) == 20
    with ThreadPoolExecutor(2) as pool:
        for attempt in range(3):
            cache = tmp_path / f"cache-{attempt}"
            outcomes = list(
                pool.map(
                    lambda todo: todo[0].run(cache_features(todo[1], todo[2]), todo[2]),
                    [(two_servers[0], more, cache), (two_servers[1], images, cache)],
                )
            )
            assert [one.code for one in outcomes] == [DONE, DONE], [one.output for one in outcomes]
            assert features_in(cache) == expected


def test_second_writer_waits_and_names_the_first(trials, images, tmp_path):
    with trials.trial(tmp_path) as (server, folder):
        cache = folder / "cache"
        assert server.run(cache_features(images, cache), folder).code == DONE
        (directory,) = (header.parent for header in cache.glob("*/cache.json"))
        for part in directory.glob("part-*"):
            part.unlink()
        with (directory / ".lock").open("w") as held, ThreadPoolExecutor(1) as pool:
            held.write(str(os.getpid()))
            held.flush()
            fcntl.flock(held, fcntl.LOCK_EX)
            waiting = pool.submit(server.run, cache_features(images, cache), folder)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=2)
            fcntl.flock(held, fcntl.LOCK_UN)
            outcome = waiting.result()
        assert outcome.code == DONE
        assert f"process {os.getpid()} is writing {directory}; waiting for it" in outcome.output
        assert len(features_in(cache)) == 12


def test_output_locked_by_another_process_is_not_touched(trials, made, images, inbox):
    finetune = ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache", *NETWORK, "--overwrite"]
    predict = ["predict", "{}/run", str(inbox), "--out", "{}/rows.csv", "--workers", "1"]
    with trials.trial(made) as (server, folder):
        before = run_in(folder / "run")
        for name, command in ((".run.lock", finetune), (".rows.csv.lock", predict)):
            with (folder / name).open("w") as held:
                held.write("4711")
                held.flush()
                fcntl.flock(held, fcntl.LOCK_EX)
                outcome = server.run(command, folder)
                assert outcome.code == DISK
                assert "process 4711 is writing" in outcome.output
        assert run_in(folder / "run") == before
        assert not (folder / "rows.csv").exists()
        assert server.run(finetune, folder).code == DONE, "the lock of an ended process is free"
        assert server.run(predict, folder).code == SOME_FAILED


@pytest.mark.slow
@pytest.mark.parametrize("code", NO_LOCKS)
def test_without_locks_commands_work_and_warn_once(trials, empty, made, images, inbox, code):
    finetune = ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache", *QUICK, *TAIL]
    predict = ["predict", str(made / "run"), str(inbox), "--out", "{}/rows.csv", "--workers", "1"]
    with trials.trial(empty) as (server, folder):
        assert server.run(finetune, folder).code == DONE
        assert server.run(predict, folder).code == SOME_FAILED
        expected = run_in(folder / "run"), features_in(folder / "cache"), (folder / "rows.csv").read_bytes()
    with trials.trial(empty) as (server, folder):
        for command, usual in ((finetune, DONE), (predict, SOME_FAILED)):
            outcome = server.run(command, folder, flock=code)
            assert outcome.code == usual, outcome.output
            assert outcome.output.count("does not support locks") == 1
            assert os.strerror(code) in outcome.output
        assert (run_in(folder / "run"), features_in(folder / "cache"), (folder / "rows.csv").read_bytes()) == expected


@pytest.mark.slow
def test_without_locks_two_predictions_never_mix_rows(trials, two_servers, empty, made, inbox):
    """Both append to one journal: the result is correct, or an error now and correct after --resume."""
    predict = ["predict", str(made / "run"), str(inbox), "--out", "{}/rows.csv", "--workers", "1"]
    with trials.trial(empty) as (server, folder):
        assert server.run(predict, folder).code == SOME_FAILED
        expected = (folder / "rows.csv").read_bytes()
    folder = trials.root / "two"
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            folder.mkdir()
            outcomes = list(pool.map(lambda one: one.run(predict, folder, flock=errno.ENOLCK), two_servers))
            assert {one.code for one in outcomes} <= {SOME_FAILED, 2, 4, DISK}, [one.output for one in outcomes]
            assert "Traceback" not in "".join(one.output for one in outcomes)
            if not (folder / "rows.csv").exists():
                assert two_servers[0].run([*predict, "--resume"], folder).code == SOME_FAILED
            assert (folder / "rows.csv").read_bytes() == expected
            shutil.rmtree(folder)


def test_read_only_cache_and_run_can_be_used(trials, made, images, inbox, tmp_path):
    writable = tmp_path / "writable"
    writable.mkdir()
    finetune = ["finetune", str(images), "--cache", "{}/cache", *NETWORK]
    commands = {
        SOME_FAILED: ["predict", "{}/run", str(inbox), "--out", str(writable / "rows.csv"), "--workers", "1"],
        DONE: [*finetune, "--out", str(writable / "run")],
    }
    refused = {
        "run.lock: the file system is read-only": [*finetune, "--out", "{}/run", "--overwrite"],
        "cannot be written: Read-only file system. Choose another with --cache DIR": [
            *finetune,
            "--out",
            str(writable / "other"),
            "--fit",
            "pad",
        ],
        "rows.csv": ["predict", "{}/run", str(inbox), "--out", "{}/rows.csv", "--workers", "1"],
    }
    with trials.trial(made) as (server, folder):
        before = files_in(folder)
        for code, command in commands.items():
            outcome = server.run(command, folder, kind=READ_ONLY)
            assert outcome.code == code, outcome.output
        for message, command in refused.items():
            outcome = server.run(command, folder, kind=READ_ONLY)
            assert outcome.code == DISK, outcome.output
            assert message in outcome.output
            assert message_problem(outcome, folder) is None, outcome.output
        assert files_in(folder) == before
    assert run_in(writable / "run")[2] == run_in(made / "run")[2]


def test_lock_on_a_deleted_file_does_not_block_the_new_file(tmp_path, report):
    path = tmp_path / ".lock"
    with locked(path, report, remove=True):
        assert path.read_text() == str(os.getpid())
        with pytest.raises(LockHeldError, match=f"process {os.getpid()}"), locked(path, report):
            pass
        path.unlink()
        with locked(path, report) as held:  # a new file, which is not locked
            assert held
    with locked(path, report):
        pass
    assert report.warnings == []
