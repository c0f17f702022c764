"""Cached and streamed batches are identical."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tlcli.backbones.zoo import load_backbone
from tlcli.datasets.dataset import Sample
from tlcli.datasets.splits import SplitDataset
from tlcli.engines.choice import choose_engine
from tlcli.features.backbone import place_backbone
from tlcli.features.cache import FeatureCache
from tlcli.features.extraction import Extraction
from tlcli.features.extractor import freeze_at
from tlcli.images.loader import ImageLoader
from tlcli.progress import Silent
from tlcli.settings.augmentation import PRESETS
from tlcli.training.tail.batches import batches_of
from tlcli.training.tail.search import feature_batch_size
from tlcli.training.tail.sources import CachedSource, StreamedSource
from tlcli.training.usable_images import UsableImages

COUNT, VIEWS, SEED = 23, 2, 7


@pytest.fixture(scope="module")
def paths(photos, tmp_path_factory):
    """Some of the drawn images, in a folder of their own."""
    root = tmp_path_factory.mktemp("sources")
    chosen = sorted(photos.rglob("*.jpg"))[::2]
    return [str(shutil.copy(path, root / f"{index:02d}.jpg")) for index, path in enumerate(chosen)]


def open_frozen(root, freeze="blocks.2", *, backbone="tf_efficientnet_lite0", weights="pretrained", batch_size=None):
    network = place_backbone(
        load_backbone(backbone, weights, classes=3, size=32, seed=0),
        choose_engine("auto", "auto", "auto", images=0),
        fit="crop",
        intensity=None,
        cache=FeatureCache(root, Silent()),
        report=Silent(),
    )
    size = feature_batch_size(network, batch_size)
    return freeze_at(network, freeze, workers=2, batch_size=size, augmentation=PRESETS["light"], seed=SEED)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """The default network at 32 pixels, cut in its third stage."""
    return open_frozen(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def digests(frozen, paths):
    """Return the digests of the images, after caching their features."""
    extraction = frozen.extract(paths)
    frozen.extract_views(paths, extraction.digests, range(1, VIEWS + 1))
    return extraction.digests


def plain(_):
    return 0


def cycled(epoch):
    return 1 + epoch % VIEWS


def images_of(paths, digests):
    """Usable images with these files."""
    samples = tuple(Sample(path=path, label=0, split="train", group=None) for path in paths)
    split = SplitDataset(
        samples=samples, digests=tuple(digests), keys=tuple(digest.hex() for digest in digests), cross_validated=False
    )
    extraction = Extraction(digests=list(digests))
    return UsableImages(dataset=None, extraction=extraction, duplicates=None, splits=split)


@pytest.fixture
def stream(frozen, paths, digests, report):
    """Return the batches of a source that decodes images, by epoch."""

    def load(batches, view_of=plain, *, epochs=(0,), workers=2, given=frozen, files=paths):
        options = given.decode_options(augmented=view_of is not plain)
        given.network = replace(given.network, report=report)
        with ImageLoader(options, workers=workers) as loader:
            source = StreamedSource(given, loader, images_of(files, digests), range(COUNT), view_of)
            return [list(source.load(batches, epoch)) for epoch in epochs]

    return load


def assert_same(one, other):
    for (rows, features), (other_rows, other_features) in zip(one, other, strict=True):
        assert torch.equal(rows, other_rows)
        assert rows.dtype == torch.int64
        assert features.dtype == other_features.dtype == torch.float32
        assert torch.equal(features, other_features)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("size", [5, 8, 23])
def test_cache_and_images_give_the_same_bits(frozen, digests, stream, size, workers):
    batches = batches_of(COUNT, size, seed=1, epoch=0)
    cached = list(CachedSource(frozen.plain, digests, plain).load(batches, 0))
    assert [rows.tolist() for rows, _ in cached] == batches
    assert cached[0][1].shape[1:] == frozen.cut.feature_shape
    assert_same(cached, stream(batches, workers=workers)[0])


def test_a_share_of_a_batch_without_images(frozen, digests):
    _, (rows, features) = CachedSource(frozen.plain, digests, plain).load([[0, 1], []], 0)
    assert (rows.dtype, rows.shape) == (torch.int64, (0,))
    assert features.shape == (0, *frozen.cut.feature_shape)


@pytest.mark.slow
def test_cached_views_are_the_streamed_ones(frozen, digests, stream):
    batches = batches_of(COUNT, 6, seed=2, epoch=0)
    source = CachedSource(frozen.augmented, digests, cycled)
    streamed = stream(batches, cycled, epochs=range(4), workers=1)
    for epoch in range(4):
        assert_same(list(source.load(batches, epoch)), streamed[epoch])
    assert_same(streamed[0], streamed[2])
    assert not torch.equal(streamed[0][0][1], streamed[1][0][1]), "another view"
    assert not torch.equal(streamed[0][0][1], stream(batches)[0][0][1]), "not the plain image"


@pytest.mark.parametrize("batch_size", [2, 7, 16])
def test_the_batch_size_does_not_change_features(paths, digests, tmp_path, stream, batch_size):
    """Training steps and the prefix share the option."""
    other = open_frozen(tmp_path, batch_size=batch_size)
    other.extract(paths)
    batches = batches_of(COUNT, batch_size, seed=3, epoch=0)
    assert_same(list(CachedSource(other.plain, digests, plain).load(batches, 0)), stream(batches)[0])


def test_the_rest_of_an_epoch_is_as_in_the_whole_epoch(frozen, digests, stream):
    batches = batches_of(COUNT, 6, seed=2, epoch=0)
    assert_same(stream(batches)[0][2:], stream(batches[2:])[0])
    source = CachedSource(frozen.plain, digests, plain)
    assert_same(list(source.load(batches, 0))[2:], list(source.load(batches[2:], 0)))
    assert list(source.load([], 0)) == stream([])[0] == []


def test_gradients_pass_if_nothing_is_frozen(paths, stream, tmp_path):
    whole = open_frozen(tmp_path, "none", backbone="lenet5", weights="none")
    (rows, images), *_ = stream([[3, 1, 2]], given=whole)[0]
    assert rows.tolist() == [3, 1, 2]
    assert images.shape == (3, 1, 32, 32)
    assert -1 <= images.min() < images.max() <= 1
    whole.cut.tail.train()(images).sum().backward()
    assert all(parameter.grad is not None for parameter in whole.cut.tail.parameters())


def test_streamed_features_can_be_trained_on(frozen, stream):
    (_, features), *_ = stream([[0, 1, 2, 3, 4]])[0]
    frozen.cut.tail.train()(features).sum().backward()
    frozen.cut.tail.eval()


def by_row(epoch):
    """The feature of each row."""
    return {int(row): feature for rows, features in epoch for row, feature in zip(rows, features, strict=True)}


@pytest.fixture
def files(paths, tmp_path):
    """Copies of the images that a test may change."""
    return [str(shutil.copy(path, tmp_path)) for path in paths]


def test_an_image_deleted_in_mid_run_is_left_out_with_one_warning(files, stream, report):
    Path(files[4]).unlink()
    batches = batches_of(COUNT, 6, seed=2, epoch=0)
    whole, again = stream(batches, epochs=(0, 1), files=files)
    (warning,) = report.warnings
    assert files[4] in warning
    assert "left out" in warning
    for epoch in (whole, again):
        rows = [int(row) for rows, _ in epoch for row in rows]
        assert sorted(rows) == [row for row in range(COUNT) if row != 4]
        assert all(len(rows) == len(features) for rows, features in epoch)
    sound = by_row(stream(batches)[0])
    for row, feature in by_row(whole).items():
        assert torch.equal(feature, sound[row])


def test_an_image_that_became_another_is_left_out(files, stream, report):
    shutil.copy(files[1], files[0])
    (batch,) = stream([[0, 1, 2]], files=files)[0]
    assert batch[0].tolist() == [1, 2]
    (warning,) = report.warnings
    assert "changed since the run began" in warning


def test_every_batch_arrives_even_if_nothing_is_left_of_it(files, stream):
    """Steps are counted by batches: a resumed training must continue at the right one."""
    for path in files[3:6]:
        Path(path).unlink()
    loaded = stream([[0, 1, 2], [3, 4, 5], [6, 7, 8]], files=files)[0]
    assert [rows.tolist() for rows, _ in loaded] == [[0, 1, 2], [], [6, 7, 8]]
