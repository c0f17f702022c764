"""One tail: where its batches come from, and that evaluation gives what prediction gives."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tlcli.backbones.zoo import load_backbone
from tlcli.datasets.dataset import open_dataset
from tlcli.engines.choice import choose_engine
from tlcli.errors import DataError
from tlcli.features.backbone import place_backbone
from tlcli.features.cache import FeatureCache
from tlcli.features.extractor import freeze_at
from tlcli.progress import Silent
from tlcli.settings.augmentation import PRESETS
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.tail.fit import predict_logits_of_rows, tail_share
from tlcli.training.tail.sources import CachedSource, StreamedSource, TailData
from tlcli.training.tail.start import train_log_prior
from tlcli.training.usable_images import split_usable_images


@pytest.fixture
def begin(photos, tmp_path):
    """Prepare the data of a tail: the cut network and its images."""

    def begin_run(freeze, *, data=photos, augment=None, views=None, cached=True):
        cache = FeatureCache(tmp_path / "cache" if cached else None, Silent())
        network = place_backbone(
            load_backbone("lenet5", "none", classes=3, size=None, seed=0),
            choose_engine("auto", "auto", "auto", images=0, frozen=freeze != "none"),
            fit="crop",
            intensity=None,
            cache=cache,
            report=Silent(),
        )
        extractor = freeze_at(network, freeze, workers=1, augmentation=PRESETS[augment] if augment else None)
        dataset = open_dataset(data)
        extraction = extractor.extract([sample.path for sample in dataset.samples])
        images = split_usable_images(dataset, extraction, None, fraction=0.2, seed=0, balanced=False, report=Silent())
        return TailData(extractor=extractor, images=images, batch_size=32, views=views)

    return begin_run


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"freeze": "1"}, CachedSource),
        ({"freeze": "1", "cached": False}, StreamedSource),
        ({"freeze": "1", "augment": "light"}, StreamedSource),
        pytest.param({"freeze": "1", "augment": "light", "views": 2}, CachedSource, marks=pytest.mark.slow),
        ({"freeze": "none"}, StreamedSource),
        pytest.param({"freeze": "none", "augment": "light"}, StreamedSource, marks=pytest.mark.slow),
    ],
)
def test_batches_come_from_the_cache_if_possible(begin, changes, kind):
    data = begin(**changes)
    with data.open(data.images.rows("train"), augmented=True) as source:
        assert isinstance(source, kind)
        (found, features), *_ = source.load([[2, 0, 1]], 0)
    assert found.tolist() == [2, 0, 1]
    assert features.shape == (3, *data.extractor.cut.feature_shape)


def test_validation_is_never_augmented(begin):
    for changes in ({"views": 2}, {}):
        data, plain = begin("1", augment="strong", **changes), begin("1")
        rows = data.images.rows("validation")
        with data.open(rows) as source:
            seen = [features for epoch in range(2) for _, features in source.load([[0, 1]], epoch)]
        with plain.open(rows) as source:
            ((_, expected),) = source.load([[0, 1]], 0)
        for features in seen:
            np.testing.assert_array_equal(features.numpy(), expected.numpy())


@pytest.mark.slow
def test_each_epoch_shows_another_view_or_one_of_k(begin):
    for views, distinct in ((None, 4), (2, 2)):
        data = begin("1", augment="light", views=views)
        with data.open(data.images.rows("train"), augmented=True) as source:
            seen = [features.numpy().tobytes() for epoch in range(4) for _, features in source.load([[0, 1, 2]], epoch)]
        assert len(set(seen)) == distinct
        assert views is None or seen[:2] == seen[2:]


def test_a_shallower_cut_leaves_the_tail_a_larger_share(begin):
    shares = [tail_share(begin(freeze).extractor) for freeze in ("none", "1", "2", "3")]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 4


def test_log_prior_is_of_the_training_images(begin, photos, tmp_path):
    data = tmp_path / "data"
    for name, count in (("disc", 15), ("square", 6), ("stripes", 3)):
        (data / name).mkdir(parents=True)
        for path in sorted((photos / name).iterdir())[:count]:
            shutil.copy(path, data / name)
    images = begin("1", data=data).images
    labels = images.labels(images.rows("train"))
    np.testing.assert_allclose(
        np.exp(train_log_prior(images, ClassWeighting(balance=True))), np.bincount(labels) / len(labels)
    )
    assert np.bincount(labels)[1:].tolist() == [6, 3]


def test_cached_and_streamed_logits_are_identical(begin):
    found = []
    for cached in (True, False):
        data = begin("1", cached=cached)
        validation = data.images.rows("validation")
        rows, logits = predict_logits_of_rows(data, validation)
        assert rows == validation
        found.append(logits)
    np.testing.assert_array_equal(*found)
    assert found[0].shape == (len(validation), 3)


@pytest.fixture
def copied(photos, tmp_path):
    """A copy of the images that a test may change."""
    return shutil.copytree(photos, tmp_path / "photos")


def test_images_that_changed_before_another_depth_is_tried_are_refused(begin, copied):
    """Deleted or replaced images have no features at another depth."""
    data = begin("1", data=copied)
    network, images = data.extractor.network, data.images
    rows = images.rows("train")
    first, second = (Path(path) for path in images.paths(rows)[:2])
    first.write_bytes(second.read_bytes())
    with (
        pytest.raises(DataError, match="1 images changed or vanished"),
        replace(data, extractor=freeze_at(network, "2", workers=1)).open(rows) as source,
    ):
        list(source.load([[0, 1, 2]], 0))
    first.unlink()
    with (
        pytest.raises(DataError, match="1 images changed or vanished"),
        replace(data, extractor=freeze_at(network, "3", workers=1)).open(rows),
    ):
        pass


def test_a_vanished_image_is_left_out_of_evaluation_until_none_is_left(begin, copied):
    data = begin("none", data=copied)
    images = data.images
    rows = images.rows("validation")
    _, whole = predict_logits_of_rows(data, rows)
    vanished = Path(images.paths(rows)[0])
    vanished.unlink()
    left, logits = predict_logits_of_rows(data, rows)
    assert left == rows[1:]
    np.testing.assert_allclose(logits, whole[1:], rtol=1e-5, atol=1e-6)
    assert list(images.lost) == [str(vanished)]
    assert images.readable("validation") == left
    for path in images.paths(rows)[1:]:
        Path(path).unlink()
    with pytest.raises(DataError, match=f"all {len(rows)} images to evaluate on"):
        predict_logits_of_rows(data, rows)
