"""Two commands at once, locks of the dead, folders that can only be read, and file systems without locks."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from fault_trials import DISK, DONE, NETWORK, QUICK, READ_ONLY, SOME_FAILED, TAIL, one_message
from test_crashes import data_set_in, features_in, run_in

from tlcli.storage.locks import Held, locked

WITHOUT = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


def cache_features(images, cache, *more):
    return ["cache-features", str(images), "--cache", str(cache), *QUICK, *more]


def test_two_writers_of_one_cache_give_what_one_gives(laboratory, images, draw, tmp_path):
    """Overlapping data sets; both processes at once, several times."""
    more = tmp_path / "more"
    shutil.copytree(images, more)
    for number in range(8):
        draw(more / "train" / "cat" / f"new{number}.png", seed=100 + number, size=(32, 32))
    with laboratory.bench(tmp_path) as (server, folder):
        assert server.run(cache_features(more, folder / "one"), folder).code == DONE
        expected = features_in(folder / "one")
    assert len(expected) == 20
    with ThreadPoolExecutor(2) as pool:
        for attempt in range(3):
            cache = tmp_path / f"cache-{attempt}"
            servers = laboratory.servers if len(laboratory.servers) > 1 else laboratory.servers * 2
            ended = list(
                pool.map(
                    lambda todo: todo[0].run(cache_features(todo[1], todo[2]), todo[2]),
                    [(servers[0], more, cache), (servers[1], images, cache)],
                )
            )
            assert [one.code for one in ended] == [DONE, DONE], [one.output for one in ended]
            assert features_in(cache) == expected


def test_a_second_writer_waits_and_says_for_whom(laboratory, images, tmp_path):
    with laboratory.bench(tmp_path) as (server, folder):
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
            ended = waiting.result()
        assert ended.code == DONE
        assert f"process {os.getpid()} is writing {directory}; waiting for it" in ended.output
        assert len(features_in(cache)) == 12


def test_a_run_and_rows_that_another_process_writes_are_not_touched(laboratory, made, images, inbox):
    finetune = ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache", *NETWORK, "--overwrite"]
    predict = ["predict", "{}/run", str(inbox), "--out", "{}/rows.csv", "--workers", "1"]
    with laboratory.bench(made) as (server, folder):
        before = run_in(folder / "run")
        for name, command in ((".run.lock", finetune), (".rows.csv.lock", predict)):
            with (folder / name).open("w") as held:
                held.write("4711")
                held.flush()
                fcntl.flock(held, fcntl.LOCK_EX)
                ended = server.run(command, folder)
                assert ended.code == DISK
                assert "process 4711 is writing" in ended.output
        assert run_in(folder / "run") == before
        assert not (folder / "rows.csv").exists()
        assert server.run(finetune, folder).code == DONE, "the dead hold no lock"
        assert server.run(predict, folder).code == SOME_FAILED


@pytest.mark.parametrize("code", WITHOUT, ids=errno.errorcode.get)
def test_without_locks_all_goes_on_and_says_so_once(laboratory, empty, made, images, inbox, code):
    finetune = ["finetune", str(images), "--out", "{}/run", "--cache", "{}/cache", *QUICK, *TAIL]
    predict = ["predict", str(made / "run"), str(inbox), "--out", "{}/rows.csv", "--workers", "1"]
    with laboratory.bench(empty) as (server, folder):
        assert server.run(finetune, folder).code == DONE
        assert server.run(predict, folder).code == SOME_FAILED
        expected = run_in(folder / "run"), features_in(folder / "cache"), (folder / "rows.csv").read_bytes()
    with laboratory.bench(empty) as (server, folder):
        for command, usual in ((finetune, DONE), (predict, SOME_FAILED)):
            ended = server.run(command, folder, flock=code)
            assert ended.code == usual, ended.output
            assert ended.output.count("has no locks") == 1
            assert os.strerror(code) in ended.output
        assert (run_in(folder / "run"), features_in(folder / "cache"), (folder / "rows.csv").read_bytes()) == expected


def test_without_locks_two_predictions_never_mix_their_rows(laboratory, empty, made, inbox):
    """Both append to one journal; what comes out is right, or refused and right the next time."""
    predict = ["predict", str(made / "run"), str(inbox), "--out", "{}/rows.csv", "--workers", "1"]
    with laboratory.bench(empty) as (server, folder):
        assert server.run(predict, folder).code == SOME_FAILED
        expected = (folder / "rows.csv").read_bytes()
    servers = laboratory.servers if len(laboratory.servers) > 1 else laboratory.servers * 2
    folder = laboratory.room / "two"
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            folder.mkdir()
            ended = list(pool.map(lambda one: one.run(predict, folder, flock=errno.ENOLCK), servers))
            assert {one.code for one in ended} <= {SOME_FAILED, 2, 4, DISK}, [one.output for one in ended]
            assert "Traceback" not in "".join(one.output for one in ended)
            if not (folder / "rows.csv").exists():
                assert servers[0].run([*predict, "--resume"], folder).code == SOME_FAILED
            assert (folder / "rows.csv").read_bytes() == expected
            shutil.rmtree(folder)


def test_a_cache_and_a_run_that_can_only_be_read_serve(laboratory, made, images, inbox, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    finetune = ["finetune", str(images), "--cache", "{}/cache", *NETWORK]
    commands = {
        SOME_FAILED: ["predict", "{}/run", str(inbox), "--out", str(mine / "rows.csv"), "--workers", "1"],
        DONE: [*finetune, "--out", str(mine / "run")],
    }
    refused = {
        "run.lock: the file system is read-only": [*finetune, "--out", "{}/run", "--overwrite"],
        "cannot be written: Read-only file system. Choose another with --cache DIR": [
            *finetune,
            "--out",
            str(mine / "other"),
            "--fit",
            "pad",
        ],
        "rows.csv": ["predict", "{}/run", str(inbox), "--out", "{}/rows.csv", "--workers", "1"],
    }
    with laboratory.bench(made) as (server, folder):
        before = data_set_in(folder)
        for code, command in commands.items():
            ended = server.run(command, folder, kind=READ_ONLY)
            assert ended.code == code, ended.output
        for message, command in refused.items():
            ended = server.run(command, folder, kind=READ_ONLY)
            assert ended.code == DISK, ended.output
            assert message in ended.output
            assert one_message(ended, folder) is None, ended.output
        assert data_set_in(folder) == before
    assert run_in(mine / "run")[2] == run_in(made / "run")[2]


def test_a_lock_that_was_removed_with_its_file_is_not_taken_for_the_new_one(tmp_path, report):
    path = tmp_path / ".lock"
    with locked(path, report, remove=True):
        assert path.read_text() == str(os.getpid())
        with pytest.raises(Held, match=f"process {os.getpid()}"), locked(path, report):
            pass
        path.unlink()
        with locked(path, report) as held:  # another file: nobody holds its lock
            assert held
    with locked(path, report):
        pass
    assert report.warnings == []
