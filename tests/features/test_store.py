"""The feature store: every row with its digest, whatever happens to writers and files."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
import torch

from tlcli.errors import ArtifactError, MachineError
from tlcli.features import store as module
from tlcli.features.listing import check_space, list_caches, nearest_cache
from tlcli.features.parts import map_part
from tlcli.features.rounding import round_as_stored
from tlcli.features.store import FeatureStore
from tlcli.progress import Silent
from tlcli.storage.locks import LockHeldError, locked

CONTENT = {"format": 1, "backbone": "tiny", "weights": "ab", "preprocessing": {"fit": "crop", "width": 16}}
SHAPE = (5,)
MAP = (3, 4, 2)


def digest(number):
    return hashlib.sha256(str(number).encode()).digest()


def feature(key, shape=SHAPE, view=0):
    """Return the feature of an image in these tests: derived from its digest, exact in half precision."""
    generator = np.random.default_rng([*key, view])
    return generator.integers(-500, 500, shape).astype(np.float32) / 4


def fill(store, numbers, view=0):
    with store.writing():
        for number in numbers:
            store.add(digest(number), view, feature(digest(number), store.shape, view))


def check(store, numbers, view=0):
    """Check that `numbers` are stored, each with its own feature, in any order and repeated."""
    asked = [*numbers, *numbers[:3]]
    random.Random(0).shuffle(asked)
    keys = [digest(number) for number in asked]
    assert all((key, view) in store for key in keys)
    gathered = store.gather(keys, view)
    assert gathered.dtype == np.float32
    assert len(gathered) == len(keys)
    for key, row in zip(keys, gathered, strict=True):
        np.testing.assert_array_equal(row, feature(key, store.shape, view))


@pytest.mark.parametrize("shape", [SHAPE, MAP, (7, 2)])
@pytest.mark.parametrize("on_disk", [True, False])
def test_rows_never_mix(tmp_path, monkeypatch, shape, on_disk):
    monkeypatch.setattr(module, "FLUSH_BYTES", 300)  # several parts per session
    root = tmp_path if on_disk else None
    store, draw = FeatureStore(root, CONTENT, shape), random.Random(0)
    for session in range(3):
        numbers = [draw.randrange(40) for _ in range(30)]  # with repeats, also of earlier sessions
        fill(store, numbers)
        check(store, numbers)
        if session == 1 and on_disk:
            store = FeatureStore(root, CONTENT, shape)
            check(store, numbers)
    numbers = [number for number in range(40) if (digest(number), 0) in store]
    assert len(store) == len(numbers) > 30
    assert store.keys() == {(digest(number), 0) for number in numbers}
    check(store, numbers)
    if on_disk:
        check(FeatureStore(root, CONTENT, shape), numbers)
    assert on_disk == any(tmp_path.iterdir())


def test_no_features_are_an_empty_array():
    assert FeatureStore(None, CONTENT, MAP).gather([]).shape == (0, *MAP)


def test_vectors_are_float32_and_maps_and_tokens_float16(tmp_path):
    for shape, dtype in [((5,), "float32"), ((3, 4, 2), "float16"), ((7, 2), "float16")]:
        store = FeatureStore(tmp_path, CONTENT | {"shape": str(shape)}, shape)
        fill(store, range(3))
        [path] = store.directory.glob("part-*.arrow")
        value = pa.from_numpy_dtype(dtype)
        assert map_part(path).schema.field("feature").type == pa.fixed_shape_tensor(value, shape)
        assert store.dtype == dtype
        header = json.loads((store.directory / "cache.json").read_text())
        assert (header["dtype"], header["feature_shape"]) == (dtype, list(shape))


def test_a_feature_that_was_just_computed_equals_the_one_from_disk(tmp_path):
    value = np.random.default_rng(0).normal(size=MAP).astype(np.float32)  # not exact in half precision
    store = FeatureStore(tmp_path, CONTENT, MAP)
    with store.writing():
        store.add(digest(0), 0, value)
    again = FeatureStore(tmp_path, CONTENT, MAP)
    np.testing.assert_array_equal(store.gather([digest(0)]), again.gather([digest(0)]))
    np.testing.assert_allclose(again.gather([digest(0)])[0], value, rtol=1e-3)


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("shape", [MAP, (7, 2)])
def test_maps_and_tokens_that_overflow_float16_are_kept_in_float32(tmp_path, shape, on_disk):
    store = FeatureStore(tmp_path if on_disk else None, CONTENT, shape)
    values = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    # 65,504 is float16's largest; values between it and 65,520 would be rounded down to it.
    for row, (place, value) in enumerate([(0, 65_504), (3, -65_504), (5, 65_510), (7, -1e6), (2, 3e38)]):
        values[row].reshape(-1)[place] = value
    with store.writing():
        for number, value in enumerate(values):
            store.add(digest(number), 0, value)
    order = [7, 2, 0, 4, 3, 1, 1, 6, 5]
    for opened in (store, FeatureStore(tmp_path, CONTENT, shape)) if on_disk else (store,):
        gathered = opened.gather([digest(number) for number in order])
        for number, found in zip(order, gathered, strict=True):
            kept = np.float32 if number in (2, 3, 4) else np.float16
            np.testing.assert_array_equal(found, values[number].astype(kept))
        assert opened.dtype == np.float32
        assert np.isfinite(gathered).all()
    parts = [map_part(path).schema.field("feature").type for path in tmp_path.glob("*/part-*.arrow")]
    assert {str(part.value_type) for part in parts} == ({"halffloat", "float"} if on_disk else set())


@pytest.mark.parametrize("shape", [SHAPE, MAP, (7, 2), (2, 1, 1)])
def test_rounding_in_torch_equals_the_stored_values(shape):
    features = np.random.default_rng(1).normal(size=(200, *shape)).astype(np.float32)
    features *= 10 ** np.linspace(-9, 6, 200, dtype=np.float32).reshape(-1, *[1] * len(shape))  # subnormal to too large
    store = FeatureStore(None, CONTENT, shape)
    with store.writing():
        for number, value in enumerate(features):
            store.add(digest(number), 0, value)
    stored = store.gather([digest(number) for number in range(200)])
    np.testing.assert_array_equal(round_as_stored(torch.from_numpy(features)).numpy(), stored)
    np.testing.assert_array_equal(round_as_stored(torch.from_numpy(stored)).numpy(), stored)
    assert (len(shape) == 1) == np.array_equal(stored, features)
    assert round_as_stored(torch.zeros(0, *shape)).shape == (0, *shape)


def test_channels_last_maps_are_kept_row_by_row(tmp_path):
    maps = np.random.default_rng(2).integers(-9, 9, (6, 4, 2, 3)).astype(np.float32).transpose(0, 3, 1, 2)
    store = FeatureStore(tmp_path, CONTENT, MAP)
    with store.writing():
        for number, value in enumerate(maps):
            store.add(digest(number), 0, value)
    np.testing.assert_array_equal(store.gather([digest(number) for number in range(6)]), maps)
    [path] = store.directory.glob("part-*.arrow")
    column = map_part(path)["feature"].combine_chunks()
    assert column.type == pa.fixed_shape_tensor(pa.float16(), MAP)
    np.testing.assert_array_equal(column.storage.flatten().to_numpy(), maps.reshape(-1))


@pytest.mark.parametrize("shape", [SHAPE, MAP])
def test_views_are_kept_apart(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(module, "FLUSH_BYTES", 300)  # views of one image in different parts
    there = {0: range(10), 1: range(10), 2: range(5, 8), 7: range(3)}
    store, draw = FeatureStore(tmp_path, CONTENT, shape), random.Random(0)
    with store.writing():
        keys = [(number, view) for view, numbers in there.items() for number in numbers]
        for number, view in draw.sample(keys, len(keys)):
            store.add(digest(number), view, feature(digest(number), shape, view))
    for opened in (store, FeatureStore(tmp_path, CONTENT, shape)):
        assert len(opened) == len(keys)
        for view, numbers in there.items():
            check(opened, numbers, view)
            keys = opened.keys()
            assert {found for found, its_view in keys if its_view == view} == {digest(number) for number in numbers}
        assert (digest(0), 2) not in opened
        with pytest.raises(KeyError):
            opened.gather([digest(5), digest(0)], view=2)


def test_a_large_cache_is_mapped_and_not_read_into_memory(tmp_path):
    """Anonymous memory, which the system cannot reclaim, while 200 MB are read in random order."""
    store, count = FeatureStore(tmp_path, CONTENT, (64, 50, 50)), 640
    value = np.ones(store.shape, np.float32)
    with store.writing():
        for number in range(count):
            store.add(digest(number), 0, value)
    done = subprocess.run(
        [sys.executable, "-c", READER, str(tmp_path), json.dumps(CONTENT), str(count)],
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(int, done.stdout.split())
    assert after - before < 60_000  # kilobytes; a batch of 32 in float32 is 20 MB, one that was just released another


def test_parts_are_arrow_files_without_paths_and_labels(tmp_path):
    store = FeatureStore(tmp_path, CONTENT, MAP)
    fill(store, range(4))
    [path] = store.directory.glob("part-*.arrow")
    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table.schema.names == ["digest", "view", "feature"]
    assert table.schema.field("digest").type == pa.binary(32)
    assert table.schema.field("view").type == pa.int32()
    assert table.schema.field("feature").type == pa.fixed_shape_tensor(pa.float16(), MAP)
    rows = table["feature"].combine_chunks().to_numpy_ndarray()
    for key, row in zip(table["digest"].to_pylist(), rows, strict=True):
        np.testing.assert_array_equal(row, feature(key, MAP))


def test_cache_json_lists_what_the_features_depend_on(tmp_path):
    store = FeatureStore(tmp_path, CONTENT, SHAPE)
    fill(store, range(2))
    header = json.loads((store.directory / "cache.json").read_text())
    assert header["ingredients"] == CONTENT
    assert header["fingerprint"] == store.directory.name == store.fingerprint


def test_other_ingredients_live_in_another_folder(tmp_path):
    one, two = (FeatureStore(tmp_path, CONTENT | {"weights": name}, SHAPE) for name in "ab")
    fill(one, range(5))
    assert one.directory != two.directory
    assert len(FeatureStore(tmp_path, two.content, SHAPE)) == 0


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt])
def test_rows_that_were_added_survive_an_exception(tmp_path, problem):
    store = FeatureStore(tmp_path, CONTENT, SHAPE)

    def interrupted():
        with store.writing():
            for number in range(7):
                store.add(digest(number), 0, feature(digest(number)))
            raise problem

    with pytest.raises(problem):
        interrupted()
    check(FeatureStore(tmp_path, CONTENT, SHAPE), range(7))
    fill(store, range(7, 9))  # the lock is free
    check(FeatureStore(tmp_path, CONTENT, SHAPE), range(9))


def test_a_full_disk_loses_only_unwritten_features(tmp_path, full_disk):
    store = FeatureStore(tmp_path, CONTENT, SHAPE)
    fill(store, range(5))
    with pytest.raises(OSError), full_disk(4000):
        fill(store, range(5, 2000))
    again = FeatureStore(tmp_path, CONTENT, SHAPE)
    assert len(again) == 5
    check(again, range(5))
    assert not list(store.directory.glob("*.tmp"))
    fill(again, range(5, 2000))
    check(FeatureStore(tmp_path, CONTENT, SHAPE), range(2000))


# Damage.


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:400] + b"x" + data[401:], lambda _: b""])
def test_a_damaged_part_is_reported_and_computed_again(tmp_path, report, damage):
    store = FeatureStore(tmp_path, CONTENT, SHAPE)
    fill(store, range(5))
    fill(store, range(5, 9))
    path = min(store.directory.glob("part-*.arrow"))
    path.write_bytes(damage(path.read_bytes()))
    opened = FeatureStore(tmp_path, CONTENT, SHAPE, report)
    assert [warning for warning in report.warnings if str(path) in warning and "damaged" in warning]
    assert opened.keys() == {(digest(number), 0) for number in range(5, 9)}
    fill(opened, range(5))
    check(FeatureStore(tmp_path, CONTENT, SHAPE), range(9))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xff"])
def test_a_damaged_cache_json_is_reported_and_rewritten(tmp_path, report, content):
    store = FeatureStore(tmp_path, CONTENT, SHAPE)
    fill(store, range(5))
    (store.directory / "cache.json").write_bytes(content)
    check(FeatureStore(tmp_path, CONTENT, SHAPE, report), range(5))
    assert any(
        "cache.json is damaged" in warning or "does not contain a JSON object" in warning for warning in report.warnings
    )
    assert json.loads((store.directory / "cache.json").read_text())["ingredients"] == CONTENT


def test_a_missing_cache_json_loses_nothing(tmp_path):
    store = FeatureStore(tmp_path, CONTENT, SHAPE)
    fill(store, range(5))
    (store.directory / "cache.json").unlink()
    again = FeatureStore(tmp_path, CONTENT, SHAPE)
    fill(again, range(5, 7))
    check(again, range(7))


def test_an_unknown_format_is_refused_and_left_alone(tmp_path):
    store = FeatureStore(tmp_path, CONTENT, SHAPE)
    fill(store, range(5))
    path = store.directory / "cache.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 999}))
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match="format 999"):
        FeatureStore(tmp_path, CONTENT, SHAPE)
    assert path.read_bytes() == before


# Several writers, and killed ones.

READER = """
import sys, json, hashlib, pathlib, random
from tlcli.features.store import FeatureStore
from tlcli.storage.locks import LockHeldError, locked
from tlcli.progress import Silent

def anonymous():
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon"))

before, count, draw = anonymous(), int(sys.argv[3]), random.Random(0)
store = FeatureStore(pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]), (64, 50, 50))
for _ in range(count // 32):
    numbers = draw.sample(range(count), 32)
    assert store.gather(hashlib.sha256(str(number).encode()).digest() for number in numbers).min() == 1
print(before, anonymous())
"""

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


# Permissions, listings, space.


def test_a_cache_that_cannot_be_written(public_path, unprivileged):
    public_path.chmod(0o555)
    with unprivileged(), pytest.raises(MachineError, match="--no-cache") as caught:
        fill(FeatureStore(public_path, CONTENT, SHAPE), range(2))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cache_that_can_only_be_read_serves(public_path, unprivileged, damaged):
    store = FeatureStore(public_path, CONTENT, SHAPE)
    fill(store, range(3))
    if damaged:
        (store.directory / "cache.json").write_text("{")
    store.directory.chmod(0o555)
    with unprivileged():
        check(FeatureStore(public_path, CONTENT, SHAPE), range(3))


def test_caches_are_listed_last_used_first(tmp_path):
    names = ["a", "b", "c"]
    for count, name in enumerate(names, start=1):
        store = FeatureStore(tmp_path, CONTENT | {"backbone": name}, SHAPE)
        fill(store, range(count))
        fill(store, range(count, 2 * count))
        os.utime(store.directory / "cache.json", (1000 * count, 1000 * count))
    FeatureStore(tmp_path, CONTENT | {"backbone": "a"}, SHAPE)  # uses it
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cache.json").write_text("{}")
    (tmp_path / "memo").mkdir()
    listed = list_caches(tmp_path)
    assert [(listing.ingredients["backbone"], listing.images) for listing in listed] == [("a", 2), ("c", 6), ("b", 4)]
    assert listed[0].bytes == sum(path.stat().st_size for path in listed[0].directory.glob("part-*"))
    assert listed[0].to_json()["feature_shape"] == [5]
    assert list_caches(tmp_path / "nowhere") == []


def test_the_nearest_cache_and_its_differences(tmp_path):
    assert nearest_cache(tmp_path, CONTENT) is None
    near = CONTENT | {"preprocessing": {"fit": "pad", "width": 16}}
    for content in (CONTENT | {"weights": "cd", "backbone": "other"}, near):
        fill(FeatureStore(tmp_path, content, SHAPE), range(2))
    listing, names = nearest_cache(tmp_path, CONTENT)
    assert listing.ingredients == near
    assert names == ["preprocessing.fit"]


def test_a_disk_without_room_is_refused_before_anything_is_computed(tmp_path):
    check_space(tmp_path / "not" / "there" / "yet", 1000)
    with pytest.raises(MachineError, match="cache prune"):
        check_space(tmp_path / "not" / "there" / "yet", 10**18)
    assert list(tmp_path.iterdir()) == []


def test_the_announced_size_is_about_the_written_size(tmp_path):
    store = FeatureStore(tmp_path, CONTENT, (1280,))
    with store.writing():
        for number in range(200):
            store.add(digest(number), 0, np.zeros(1280, np.float32))
    written = sum(path.stat().st_size for path in store.directory.glob("part-*"))
    assert written == pytest.approx(200 * store.row_bytes(), rel=0.02)


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
