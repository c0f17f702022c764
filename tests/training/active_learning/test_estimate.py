"""The estimated accuracy of proposals, and the gain of more labels."""

import numpy as np

from tlcli.inference.metrics import wilson_interval
from tlcli.training.active_learning.estimate import assess


def draw(count, spread, seed=0):
    generator = np.random.default_rng(seed)
    centers = generator.normal(0, 1, (5, 50))
    labels = generator.integers(0, 5, count)
    return (centers[labels] + generator.normal(0, spread, (count, 50))).astype(np.float32), labels


def everywhere(labels):
    return np.ones(len(labels), bool)


def gain_of(features, labels):
    return assess(features, labels, everywhere(labels))[1]


def test_accuracy_is_estimated_on_random_images_only():
    features, labels = draw(200, 2.5)
    hard = features.copy()
    hard[:100] = np.random.default_rng(1).normal(0, 1, (100, 50))  # nobody can tell their class
    at_random = np.arange(200) >= 100
    estimate, _ = assess(hard, labels, at_random)
    assert estimate.judged == 100
    assert estimate.accuracy > 0.5
    assert estimate.interval == wilson_interval(round(100 * estimate.accuracy), 100)
    assert assess(hard, labels, ~at_random)[0].accuracy < 0.4


def test_images_that_are_not_random_are_never_left_out():
    """A class whose only other image is not random is still known."""
    features, labels = draw(100, 0.5)
    at_random = np.zeros(100, bool)
    for name in range(5):
        at_random[np.flatnonzero(labels == name)[1:3]] = True
    kept = at_random.copy()
    for name in range(5):
        kept[np.flatnonzero(labels == name)[0]] = True
    estimate, _ = assess(features[kept], labels[kept], at_random[kept])
    assert (estimate.judged, estimate.accuracy) == (10, 1.0)


def test_the_estimate_is_that_of_new_images():
    """An image's own label must not help to predict it."""
    features, labels = np.random.default_rng(0).normal(0, 1, (200, 400)).astype(np.float32), np.arange(200) % 4
    assert assess(features, labels, everywhere(labels))[0].accuracy < 0.4


def test_nothing_is_estimated_from_few_random_images():
    features, labels = draw(100, 1)
    assert assess(features, labels, np.arange(100) < 7)[0] is None
    assert assess(features, labels, np.arange(100) < 8)[0] is not None


def test_gain_shrinks_with_labels():
    few, many = (gain_of(*draw(count, 2.5)) for count in (50, 1000))
    assert few.accuracy > many.accuracy
    assert few.worthwhile
    assert not many.worthwhile


def test_no_gain_where_all_is_right():
    gain = gain_of(*draw(200, 0.1))
    assert 0 <= gain.accuracy < 0.005
    assert not gain.worthwhile


def test_no_gain_is_predicted_from_few_labels():
    assert gain_of(*draw(30, 1)) is None
    features, labels = draw(100, 1)
    assert assess(features, np.zeros_like(labels), everywhere(labels)) == (None, None)


def test_classes_with_one_label():
    features, _ = draw(60, 1)
    assert gain_of(features, np.arange(60) // 2) is not None
    assert gain_of(features, np.arange(60)) is not None
