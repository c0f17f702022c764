"""What novelty is fitted on, and the share of known images that a fitted one flags."""

from types import SimpleNamespace

import numpy as np
import pytest

from tlcli.datasets.dataset import Sample
from tlcli.datasets.splits import SplitDataset
from tlcli.training import novelty
from tlcli.training.novelty import NoveltyRows, fit_novelty, novelty_rows
from tlcli.training.usable_images import UsableImages

CLASSES, FEATURES = 4, 160


def usable(labels, *, split=lambda number: "train", near_copies=()):
    samples = tuple(Sample(path=f"{n}.jpg", label=label, split=split(n)) for n, label in enumerate(labels))
    digests = tuple(bytes([n % 251, n // 251]) for n in range(len(samples)))
    keys = tuple(digest.hex() for digest in digests)
    splits = SplitDataset(samples=samples, digests=digests, keys=keys, cross_validated=True)
    return UsableImages(
        dataset=SimpleNamespace(classes=range(CLASSES)),
        extraction=None,
        duplicates=None,
        splits=splits,
        near_copies=frozenset(near_copies),
    )


CENTERS = np.random.default_rng(7).normal(0, 1, (CLASSES, FEATURES))


def draw(generator, count, *, known=True):
    """Return features of `count` images, of the four classes or like none of them, and logits of the classes."""
    features = generator.normal(0, 1, (count, FEATURES))
    if known:
        features += CENTERS[generator.integers(0, CLASSES, count)]
    else:
        features -= 3 * CENTERS.mean(axis=0)
    return features.astype(np.float32), (features @ CENTERS.T).astype(np.float32)


def rows_for(logits, groups=None):
    count = len(logits)
    named = dict(enumerate(range(count) if groups is None else groups))
    return NoveltyRows(bank=list(range(count)), known=list(range(count)), logits=logits, groups=named)


@pytest.mark.parametrize("count", [60, 300, 2500])
def test_known_images_are_flagged_as_often_as_promised(count):
    """Features of 2,500 images are projected."""
    flagged, unknown = [], []
    for seed in range(2 if count == 2500 else 20):
        generator = np.random.default_rng(seed)
        features, logits = draw(generator, count)
        fitted = fit_novelty(rows_for(logits), features).novelty
        flagged.append((fitted(*draw(generator, 1000)) > 0.95).mean())
        unknown.append((fitted(*draw(generator, 1000, known=False)) > 0.95).mean())
    assert 0.02 < np.mean(flagged) < 0.08
    assert np.mean(unknown) > 0.9


def test_copies_in_a_group_do_not_make_new_images_unknown():
    """Seven near copies of each object: their distances to each other say nothing about new objects."""
    generator = np.random.default_rng(0)
    features, logits = draw(generator, 100)
    copies = np.repeat(features, 7, axis=0) + generator.normal(0, 0.01, (700, FEATURES)).astype(np.float32)
    new = draw(generator, 1000)
    shares = {
        name: (fit_novelty(rows_for(np.repeat(logits, 7, axis=0), groups), copies).novelty(*new) > 0.95).mean()
        for name, groups in (("grouped", np.repeat(np.arange(100), 7).tolist()), ("single", None))
    }
    assert shares["grouped"] < 0.1
    assert shares["single"] > 0.3


def test_novelty_that_cannot_be_told():
    features, logits = draw(np.random.default_rng(0), 50)
    assert fit_novelty(rows_for(logits, groups=[0] * 50), features) is None, "nothing to be compared with"
    assert fit_novelty(rows_for(np.zeros_like(logits)), np.ones_like(features)) is None, "all images are the same"


def test_the_bank_is_bounded_and_keeps_rare_classes(monkeypatch):
    monkeypatch.setattr(novelty, "BANK", 50)
    labels = [0] * 200 + [1] * 100 + [2] * 10 + [3] * 2
    rows = novelty_rows(usable(labels), range(312), np.zeros((312, CLASSES), np.float32), refitted=False)
    assert len(rows.bank) == len(rows.known) == len(rows.logits) == 50
    assert np.bincount([labels[row] for row in rows.bank]).tolist() == [19, 19, 10, 2]
    assert rows.all == sorted({*rows.bank, *rows.known})
    assert rows.groups.keys() == set(rows.all)


def test_rows_of_held_out_images():
    images = usable([0, 1] * 10, split=lambda number: "validation" if number >= 15 else "train", near_copies=[16])
    logits = np.arange(20, dtype=np.float32).reshape(5, 4)
    rows = novelty_rows(images, range(15, 20), logits, refitted=False)
    assert sorted(rows.bank) == list(range(15))
    assert rows.known == [15, 17, 18, 19], "near copies of training images are typical for no new image"
    assert np.array_equal(rows.logits, logits[[0, 2, 3, 4]])
    assert sorted(novelty_rows(images, range(15, 20), logits, refitted=True).bank) == list(range(20))
    kept = rows.only({1, 2, 17}, {1, 2, 17})
    assert (sorted(kept.bank), kept.known, kept.logits.tolist()) == ([1, 2], [17], [logits[2].tolist()])
