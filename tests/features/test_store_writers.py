"""Several writers of one feature store, killed ones too, lose nothing."""

import json
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from stored_features import CONTENT, SHAPE, check, digest, feature, fill

from tlcli.features.store import FeatureStore
from tlcli.progress import Silent
from tlcli.storage.locks import LockHeldError, locked

WRITER = """
import sys, json, hashlib, pathlib
import numpy as np
from tlcli.features import store as module

module.FLUSH_BYTES = 400
store = module.FeatureStore(pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]), (5,))
print("ready", flush=True)
sys.stdin.readline()
with store.writing():
    for number in map(int, sys.argv[3].split(",")):
        key = hashlib.sha256(str(number).encode()).digest()
        value = np.random.default_rng(list(key) + [0]).integers(-500, 500, 5).astype(np.float32) / 4
        if (key, 0) not in store:
            store.add(key, 0, value)
            print(number, flush=True)
    if sys.argv[4:]:
        print("holding", flush=True)
        sys.stdin.readline()
"""


def start_writer(root, numbers, *more):
    command = [sys.executable, "-c", WRITER, str(root), json.dumps(CONTENT), ",".join(map(str, numbers)), *more]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_writers_at_once_lose_nothing(tmp_path):
    with start_writer(tmp_path, range(60)) as one, start_writer(tmp_path, range(30, 90)) as two:
        for process in (one, two):
            process.stdin.write("\n")
        assert (one.wait(), two.wait()) == (0, 0)
    check(FeatureStore(tmp_path, CONTENT, SHAPE), range(90))


def test_a_writer_sees_what_another_wrote_meanwhile(tmp_path):
    one, two = (FeatureStore(tmp_path, CONTENT, SHAPE) for _ in range(2))
    fill(one, range(5))
    assert len(two) == 0
    with two.writing():
        check(two, range(5))


def test_waiting_for_another_writer_is_reported(tmp_path, report):
    with start_writer(tmp_path, range(10), "hold") as other:
        other.stdin.write("\n")
        assert "holding\n" in other.stdout

        class Patient(type(report)):
            def warn(self, text):
                super().warn(text)
                other.stdin.write("\n")  # the other one continues, and releases the lock

        patient = Patient()
        store = FeatureStore(tmp_path, CONTENT, SHAPE, patient)
        fill(store, range(10, 12))
        other.wait()
    assert [warning for warning in patient.warnings if f"process {other.pid} is writing" in warning]
    check(FeatureStore(tmp_path, CONTENT, SHAPE), range(12))


def test_readers_need_no_lock(tmp_path):
    fill(FeatureStore(tmp_path, CONTENT, SHAPE), range(10))
    with start_writer(tmp_path, range(10, 20), "hold") as other:
        other.stdin.write("\n")
        assert "holding\n" in other.stdout
        check(FeatureStore(tmp_path, CONTENT, SHAPE), range(10))
        other.stdin.write("\n")


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_a_cache_to_go_on_with(tmp_path):
    whole, draw, count = FeatureStore(tmp_path / "whole", CONTENT, SHAPE), random.Random(0), 1500
    fill(whole, range(count))
    for attempt in range(6):
        root, added = tmp_path / str(attempt), draw.randrange(400)
        with start_writer(root, range(count)) as process:
            process.stdin.write("\n")
            for _ in range(added):
                process.stdout.readline()
            time.sleep(draw.uniform(0, 0.01))
            process.kill()
        store = FeatureStore(root, CONTENT, SHAPE)
        there = [number for number in range(count) if (digest(number), 0) in store]
        assert there == list(range(len(there)))
        assert len(there) > added - 10  # what it had not yet flushed
        check(store, there)
        fill(store, range(len(there), count))  # dead processes hold no lock
        again = FeatureStore(root, CONTENT, SHAPE)
        keys = [digest(number) for number in range(count)]
        np.testing.assert_array_equal(again.gather(keys), whole.gather(keys))
        assert not list(store.directory.glob(".part-*"))


def test_writers_that_share_write_at_the_same_time_and_keep_others_out(tmp_path):
    """As shards that a job array starts together on one cache do."""
    one, two = (FeatureStore(tmp_path, CONTENT, SHAPE, shared_writers=True) for _ in range(2))
    with one.writing(), two.writing():
        left = one.directory / ".part-other.tmp"  # what the other one is writing just now
        left.touch()
        for number in range(6):
            (one if number % 2 else two).add(digest(number), 0, feature(digest(number)))
        with pytest.raises(LockHeldError), locked(one.directory / ".lock", Silent()):
            pass
        with FeatureStore(tmp_path, CONTENT, SHAPE, shared_writers=True).writing():
            assert left.exists()
    check(FeatureStore(tmp_path, CONTENT, SHAPE), range(6))
    fill(FeatureStore(tmp_path, CONTENT, SHAPE), [6])
    assert not left.exists()
