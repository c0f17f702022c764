"""Extraction into the store, with the mean color as the network: each image once, and no row mixed up."""

import hashlib
import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlcli.features.extraction import extract, find_missing
from tlcli.features.memo import Memo
from tlcli.features.store import FeatureStore
from tlcli.images.decode import decode
from tlcli.images.loader import ImageLoader
from tlcli.images.preprocess import fit_image
from tlcli.images.worker import DecodedImage, DecodeOptions
from tlcli.storage.stored import stamp

LONG_AGO = 1_600_000_000 * 10**9
SHAPE = (3,)


def mean_color(pixels):
    """uint8 [B, H, W, 3] to float32 [B, 3]."""
    return pixels.mean((1, 2), dtype=np.float64).astype(np.float32)


def settle_down(path):
    """Make a file old enough to be remembered."""
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return str(path)


@pytest.fixture
def photos(tmp_path, draw, monkeypatch):
    """Paths of twelve images in two folders, old enough to be remembered."""
    monkeypatch.setattr("tlcli.features.memo.RACY_TICK", 0)
    names = [f"photos/{'cat' if number % 2 else 'dog'}/{number}.png" for number in range(12)]
    return [settle_down(draw(tmp_path / name, number)) for number, name in enumerate(names)]


@pytest.fixture
def run(tmp_path, small, report):
    """Open the cache, look up, and compute what is missing, as a command does; return the extraction and the store."""

    def once(paths, *, verify=False, prefix=mean_color, batch_size=4, workers=2, root=tmp_path / "cache"):
        store, memo = FeatureStore(root, {"backbone": "mean color"}, SHAPE, report), Memo(root, report)
        missing = find_missing(paths, store, memo, verify=verify)
        if missing.todo:
            with ImageLoader(DecodeOptions(preprocessing=small, known=store.keys()), workers=workers) as loader:
                extract(
                    missing,
                    open_prefix=lambda: lambda batches: map(prefix, batches),
                    loader=loader,
                    image_shape=small.shape,
                    memo=memo,
                    batch_size=batch_size,
                    report=report,
                )
        return missing.extraction, store

    return once


@pytest.fixture
def right(small):
    """Return whether each image's row is its own mean color."""

    def check(paths, extraction, store):
        good = [index for index in range(len(paths)) if index not in extraction.failures]
        features = store.gather([extraction.digests[index] for index in good])
        for index, feature in zip(good, features, strict=True):
            data = Path(paths[index]).read_bytes()
            assert extraction.digests[index] == hashlib.sha256(data).digest()
            pixels = np.asarray(fit_image(decode(data, 3), small))
            np.testing.assert_allclose(feature, mean_color(pixels[None])[0], rtol=1e-6)
        return True

    return check


def counts(extraction):
    return extraction.computed, extraction.reused, len(extraction.failures)


def test_a_second_run_computes_nothing_and_reads_nothing(photos, run, right):
    extraction, store = run(photos)
    assert counts(extraction) == (12, 0, 0)
    assert right(photos, extraction, store)
    again, store = run(photos, prefix=None, workers=0)  # neither network nor decoders
    assert counts(again) == (0, 12, 0)
    assert right(photos, again, store)


def test_a_verified_second_run_reads_everything_and_computes_nothing(photos, run, right):
    run(photos)
    extraction, store = run(photos, verify=True, prefix=None)
    assert counts(extraction) == (0, 12, 0)
    assert right(photos, extraction, store)


def test_ten_more_images_are_ten_more_to_compute(photos, run, right, draw, tmp_path):
    run(photos)
    more = [settle_down(draw(tmp_path / f"photos/cat/new {number}.png", 100 + number)) for number in range(10)]
    paths = sorted(photos + more)
    extraction, store = run(paths)
    assert counts(extraction) == (10, 12, 0)
    assert right(paths, extraction, store)


def test_one_edited_image_is_one_to_compute(photos, run, right, draw):
    run(photos)
    draw(photos[5], 77)
    extraction, store = run(photos)
    assert counts(extraction) == (1, 11, 0)
    assert right(photos, extraction, store)


def test_an_edit_that_keeps_size_and_time_is_found(photos, run, right, tmp_path, report):
    one, two = (Image.new("RGB", (20, 14), color) for color in ((200, 0, 0), (0, 0, 200)))
    path = str(tmp_path / "photos" / "cat" / "edited.bmp")  # no compression: every image has this size
    one.save(path)
    settle_down(path)
    run([*photos, path])
    two.save(path)
    settle_down(path)
    extraction, store = run([*photos, path])
    assert counts(extraction) == (1, 12, 0)
    assert right([*photos, path], extraction, store)
    assert not run([*photos, path], prefix=None)[0].computed

    memo = Memo(tmp_path / "cache", report)  # a file system that does not count changes
    other = extraction.digests[0]
    memo.remember(path, DecodedImage(digest=other, stamp=stamp(path), read=time.time_ns()))
    memo.save()
    assert run([*photos, path])[0].digests[-1] == other
    extraction, store = run([*photos, path], verify=True)
    assert right([*photos, path], extraction, store)
    extraction, store = run([*photos, path])  # remembered correctly from now on
    assert right([*photos, path], extraction, store)


def test_moved_and_renamed_images_are_not_computed(photos, run, right, tmp_path):
    run(photos)
    shutil.move(tmp_path / "photos", tmp_path / "moved")
    Path(tmp_path / "moved/cat/1.png").rename(tmp_path / "moved/dog/renamed.png")
    paths = [str(path) for path in sorted((tmp_path / "moved").rglob("*.png"))]
    extraction, store = run(paths, prefix=None)
    assert counts(extraction) == (0, 12, 0)
    assert right(paths, extraction, store)


def test_images_that_were_just_written_are_read_again_but_not_computed(run, right, draw, tmp_path):
    path = str(draw(tmp_path / "new.png", 1))
    run([path])
    extraction, store = run([path], prefix=None)
    assert counts(extraction) == (0, 1, 0)
    assert right([path], extraction, store)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_copies_are_computed_once(photos, run, right, tmp_path, batch_size):
    copies = [settle_down(shutil.copy(path, tmp_path / f"copy{number}.png")) for number, path in enumerate(photos[:5])]
    paths = [*photos, *copies, photos[0]]
    extraction, store = run(paths, batch_size=batch_size)
    assert counts(extraction) == (12, 6, 0)
    assert len(store) == 12
    assert right(paths, extraction, store)


def test_failures_are_listed_and_tried_again(photos, run, right, draw, tmp_path):
    text, gone = tmp_path / "photos/cat/text.jpg", str(tmp_path / "photos/cat/gone.jpg")
    text.write_text("no image")
    settle_down(text)
    paths = [photos[0], str(text), *photos[1:6], gone, *photos[6:]]
    extraction, store = run(paths)
    assert counts(extraction) == (12, 0, 2)
    assert "not an image" in extraction.failures[1]
    assert "No such file" in extraction.failures[7]
    assert extraction.digests[7] is None
    assert right(paths, extraction, store)
    again, _ = run(paths)
    assert counts(again) == (0, 12, 2)
    assert again.failures == extraction.failures
    draw(gone, 200)
    mended, store = run(paths)
    assert counts(mended) == (1, 12, 1)
    assert right(paths, mended, store)


@pytest.mark.parametrize("seed", range(3))
def test_rows_and_labels_stay_together_in_any_order_with_copies_and_failures(
    photos, run, right, tmp_path, seed, monkeypatch
):
    monkeypatch.setattr("tlcli.features.store.FLUSH_BYTES", 150)
    shuffle = random.Random(seed)
    for number in range(4):
        shutil.copy(photos[number], tmp_path / f"copy{number}.png")
        (tmp_path / f"text{number}.png").write_text(f"no image {number % 2}")
    names = [f"{kind}{number}.png" for kind in ("copy", "text") for number in range(4)]
    paths = photos + [str(tmp_path / name) for name in names] + [str(tmp_path / "missing.png")] * 2
    first = shuffle.sample(paths, 9)
    extraction, store = run(first, batch_size=2, workers=3)
    assert right(first, extraction, store)
    for batch_size in (3, 5):
        shuffle.shuffle(paths)
        extraction, store = run(paths, batch_size=batch_size, workers=3)
        bad = {index for index, path in enumerate(paths) if "text" in path or "missing" in path}
        assert set(extraction.failures) == bad
        assert sum(counts(extraction)) == len(paths)
        assert right(paths, extraction, store)
    assert len(store) == 12


def test_features_computed_before_an_interruption_are_kept(photos, run, right):
    seen = []

    def interrupted(pixels):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(pixels))
        return mean_color(pixels)

    with pytest.raises(KeyboardInterrupt):
        run(photos, prefix=interrupted)
    extraction, store = run(photos)
    assert counts(extraction) == (4, 8, 0)
    assert right(photos, extraction, store)


def test_features_computed_by_another_process_meanwhile_are_not_computed_again(
    photos, small, report, tmp_path, run, right
):
    root = tmp_path / "cache"
    store, memo = FeatureStore(root, {"backbone": "mean color"}, SHAPE, report), Memo(root, report)
    missing = find_missing(photos, store, memo, verify=False)
    run(photos)  # the other one, which had the lock first
    with ImageLoader(DecodeOptions(preprocessing=small), workers=1) as loader:
        extract(
            missing,
            open_prefix=lambda: lambda batches: map(mean_color, batches),
            loader=loader,
            image_shape=small.shape,
            memo=memo,
            batch_size=4,
            report=report,
        )
    assert counts(missing.extraction) == (0, 12, 0)
    assert right(photos, missing.extraction, store)


def test_without_a_cache_nothing_is_written(photos, run, right, tmp_path):
    extraction, store = run(photos, root=None)
    assert counts(extraction) == (12, 0, 0)
    assert right(photos, extraction, store)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_progress_counts_every_image_to_do(photos, run, report, monkeypatch):
    from contextlib import contextmanager

    done = []

    @contextmanager
    def task(name, total, unit="images"):
        done.append([name, total, 0])

        def advance(steps):
            done[-1][2] += steps

        yield advance

    monkeypatch.setattr(report, "task", task)
    run(photos[:5])
    run(photos)
    assert done == [["Features", 5, 5], ["Features", 7, 7]]
