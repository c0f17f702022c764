"""The feature store: every row with its digest, however it was written."""

import json
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from stored_features import CONTENT, MAP, SHAPE, check, digest, feature, fill

from tlcli.features import store as module
from tlcli.features.store import FeatureStore


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


READER = """
import sys, json, hashlib, pathlib, random
from tlcli.features.store import FeatureStore

def anonymous():
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon"))

before, count, draw = anonymous(), int(sys.argv[3]), random.Random(0)
store = FeatureStore(pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]), (64, 50, 50))
for _ in range(count // 32):
    numbers = draw.sample(range(count), 32)
    assert store.gather(hashlib.sha256(str(number).encode()).digest() for number in numbers).min() == 1
print(before, anonymous())
"""


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


def test_the_announced_size_is_about_the_written_size(tmp_path):
    store = FeatureStore(tmp_path, CONTENT, (1280,))
    with store.writing():
        for number in range(200):
            store.add(digest(number), 0, np.zeros(1280, np.float32))
    written = sum(path.stat().st_size for path in store.directory.glob("part-*"))
    assert written == pytest.approx(200 * store.row_bytes(), rel=0.02)
