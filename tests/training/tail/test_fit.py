"""One tail: where its batches come from, and that what is judged is what prediction gives."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tlcli.datasets.dataset import open_dataset
from tlcli.errors import DataError
from tlcli.features.frozen import freeze_at, plain_features
from tlcli.features.network import open_network
from tlcli.progress import Silent
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, TrainingSettings
from tlcli.settings.augmentation import PRESETS
from tlcli.training.tail.sources import CachedSource, StreamedSource
from tlcli.training.tail.train import evaluate_tail, log_prior_of, open_source, tail_share
from tlcli.training.usable_images import settle_images


@pytest.fixture
def begin(photos, tmp_path):
    """What a run has when its training begins: settings, the cut network, its images."""

    def begin_run(freeze, *, data=photos, augment=None, views=None, cache=None, **changes):
        settings = FinetuneSettings(
            data=data,
            network=NetworkSettings(backbone="lenet5", weights="none", freeze=freeze),
            training=TrainingSettings(views=views),
            cache=cache or CacheSettings(directory=tmp_path / "cache"),
            augmentation=PRESETS[augment] if augment else None,
            compute=ComputeSettings(workers=1),
            **changes,
        )
        network = open_network(settings.network, settings.compute, settings.cache, classes=3, images=0, report=Silent())
        frozen = freeze_at(network, freeze, Silent(), augmentation=settings.augmentation)
        dataset = open_dataset(data)
        paths = [sample.path for sample in dataset.samples]
        extraction, _ = plain_features(frozen, paths, settings.compute, verify=False, report=Silent())
        return settings, frozen, settle_images(dataset, extraction, settings, Silent())

    return begin_run


NO_CACHE = CacheSettings(enabled=False)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"freeze": "1"}, CachedSource),
        ({"freeze": "1", "cache": NO_CACHE}, StreamedSource),
        ({"freeze": "1", "augment": "light"}, StreamedSource),
        ({"freeze": "1", "augment": "light", "views": 2}, CachedSource),
        ({"freeze": "none"}, StreamedSource),
        ({"freeze": "none", "augment": "light"}, StreamedSource),
    ],
)
def test_what_can_be_cached_is(begin, changes, kind):
    settings, frozen, images = begin(**changes)
    rows = images.rows("train")
    with open_source(frozen, images, rows, settings, Silent(), augmented=True) as source:
        assert isinstance(source, kind)
        (found, features), *_ = source.load([[2, 0, 1]], 0)
    assert found.tolist() == [2, 0, 1]
    assert features.shape == (3, *frozen.cut.feature_shape)


def test_validation_is_never_distorted(begin):
    for changes in ({"views": 2}, {}):
        settings, frozen, images = begin("1", augment="strong", **changes)
        plain_settings, plain, _ = begin("1")
        rows = images.rows("validation")
        with open_source(frozen, images, rows, settings, Silent()) as source:
            seen = [features for epoch in range(2) for _, features in source.load([[0, 1]], epoch)]
        with open_source(plain, images, rows, plain_settings, Silent()) as source:
            ((_, expected),) = source.load([[0, 1]], 0)
        for features in seen:
            np.testing.assert_array_equal(features.numpy(), expected.numpy())


def test_each_epoch_shows_another_view_or_one_of_k(begin):
    for views, distinct in ((None, 4), (2, 2)):
        settings, frozen, images = begin("1", augment="light", views=views)
        with open_source(frozen, images, images.rows("train"), settings, Silent(), augmented=True) as source:
            seen = [features.numpy().tobytes() for epoch in range(4) for _, features in source.load([[0, 1, 2]], epoch)]
        assert len(set(seen)) == distinct
        assert views is None or seen[:2] == seen[2:]


def test_a_shallower_cut_leaves_the_tail_a_larger_share(begin):
    shares = [tail_share(begin(freeze)[1]) for freeze in ("none", "1", "2", "3")]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 4


def test_log_prior_is_of_the_training_images(begin, photos, tmp_path):
    data = tmp_path / "data"
    for name, count in (("disc", 15), ("square", 6), ("stripes", 3)):
        (data / name).mkdir(parents=True)
        for path in sorted((photos / name).iterdir())[:count]:
            shutil.copy(path, data / name)
    _, _, images = begin("1", data=data)
    labels = images.labels(images.rows("train"))
    np.testing.assert_allclose(np.exp(log_prior_of(images)), np.bincount(labels) / len(labels))
    assert np.bincount(labels)[1:].tolist() == [6, 3]


def test_logits_don_t_depend_on_where_features_come_from(begin):
    found = []
    for cache in (None, NO_CACHE):
        settings, frozen, images = begin("1", cache=cache)
        rows, logits = evaluate_tail(frozen, images, images.rows("validation"), settings, Silent())
        assert rows == images.rows("validation")
        found.append(logits)
    np.testing.assert_array_equal(*found)
    assert found[0].shape == (len(images.rows("validation")), 3)


@pytest.fixture
def copied(photos, tmp_path):
    """The images, to be harmed."""
    return shutil.copytree(photos, tmp_path / "photos")


def test_images_that_changed_before_another_depth_is_tried_are_refused(begin, copied):
    """Deleted, or another image by now: there is no feature of what the run began with."""
    settings, frozen, images = begin("1", data=copied)
    shallower = freeze_at(frozen.network, "2", Silent())
    rows = images.rows("train")
    first, second = (Path(path) for path in images.paths(rows)[:2])
    first.write_bytes(second.read_bytes())
    with pytest.raises(DataError, match="1 images changed or vanished"), open_source(
        shallower, images, rows, settings, Silent()
    ) as source:  # fmt: skip
        list(source.load([[0, 1, 2]], 0))
    first.unlink()
    with pytest.raises(DataError, match="1 images changed or vanished"), open_source(
        freeze_at(frozen.network, "3", Silent()), images, rows, settings, Silent()
    ):  # fmt: skip
        pass


def test_a_vanished_image_is_left_out_of_what_is_judged_until_none_is_left(begin, copied):
    settings, frozen, images = begin("none", data=copied)
    rows = images.rows("validation")
    _, whole = evaluate_tail(frozen, images, rows, settings, Silent())
    vanished = Path(images.paths(rows)[0])
    vanished.unlink()
    left, logits = evaluate_tail(frozen, images, rows, settings, Silent())
    assert left == rows[1:]
    np.testing.assert_allclose(logits, whole[1:], rtol=1e-5, atol=1e-6)
    assert list(images.lost) == [str(vanished)]
    assert images.readable("validation") == left
    for path in images.paths(rows)[1:]:
        Path(path).unlink()
    with pytest.raises(DataError, match=f"all {len(rows)} images to judge by"):
        evaluate_tail(frozen, images, rows, settings, Silent())
