"""Promised precision: in a simulation in which the true precision is known, and by hand."""

import numpy as np
import pytest

from tlcli.inference.precision import LEVEL, images_needed, promise_precision
from tlcli.runs.held_out_predictions import HeldOutPredictions

CLASSES = ["a", "b", "c", "d"]
SHARES = [0.4, 0.3, 0.2, 0.1]
SKILL = np.array([1.3, 1.0, 0.6, 1.6])
"""Of confidence c, a share 1 - (1 - c) ** skill of the images with a label is right."""
TRIALS = 300


def simulated(generator, images):
    """Predictions whose confidence is wrong in a known way: labels, predicted classes, confidences."""
    predicted = generator.choice(len(CLASSES), images, p=SHARES)
    confidences = generator.beta(12, 1, images)
    right = generator.random(images) < 1 - (1 - confidences) ** SKILL[predicted]
    return np.where(right, predicted, (predicted + 1) % len(CLASSES)), predicted, confidences


def held_out(labels, predicted, confidences):
    probabilities = np.zeros((len(labels), len(CLASSES)), np.float32)
    probabilities[np.arange(len(labels)), predicted] = confidences
    return HeldOutPredictions(labels=labels, predicted=predicted, probabilities=probabilities)


@pytest.fixture(scope="module")
def population():
    """Many images, by predicted class: confidences in descending order, and the precision at and above each."""
    labels, predicted, confidences = simulated(np.random.default_rng(1), 400_000)
    found = []
    for label in range(len(CLASSES)):
        rows = np.flatnonzero(predicted == label)
        rows = rows[np.argsort(-confidences[rows])]
        right = labels[rows] == label
        found.append((confidences[rows], np.cumsum(right) / np.arange(1, len(rows) + 1)))
    return found


@pytest.mark.parametrize(("images", "target", "promised"), [(300, 0.9, 0.3), (3000, 0.9, 0.7), (20_000, 0.98, 0.3)])
def test_all_promises_hold_in_at_least_95_of_100_cases(population, images, target, promised):
    generator = np.random.default_rng(2)
    broken, automatic = 0, []
    for _ in range(TRIALS):
        some = held_out(*simulated(generator, images))
        promises = promise_precision(some, CLASSES, [target] * len(CLASSES))
        automatic.append(sum(promise.automatic for promise in promises) / images)
        precisions = []
        for promise, (confidences, precision) in zip(promises, population, strict=True):
            if promise.threshold is not None:
                precisions.append(precision[np.searchsorted(-confidences, -promise.threshold, side="right") - 1])
        broken += any(precision < target for precision in precisions)
    assert broken / TRIALS <= LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / TRIALS)
    assert np.mean(automatic) > promised


def test_classes_without_a_target_or_enough_images():
    labels, predicted, confidences = simulated(np.random.default_rng(3), 500)
    promises = promise_precision(held_out(labels, predicted, confidences), CLASSES, [0.8, None, 0.999, None])
    assert [promise.name for promise in promises] == ["a", "c"]
    assert promises[0].threshold is not None
    assert promises[0].automatic > 0
    assert promises[1].threshold is None
    assert promises[1].held_out < promises[1].needed == images_needed(0.999, LEVEL / 2)


def threshold(confidences, correct, target):
    """The threshold of the only class with a target, which is tested at the level 0.05."""
    labels = np.where(correct, 0, 1)
    (promise,) = promise_precision(
        held_out(labels, np.zeros(len(labels), int), confidences), CLASSES, [target, None, None, None]
    )
    return promise.threshold


@pytest.mark.parametrize(("target", "images"), [(0.98, 149), (0.9, 29), (0.5, 5)])
def test_the_smallest_number_of_images(target, images):
    assert images_needed(target, LEVEL) == images
    confidences = np.full(images, 1.0)
    assert threshold(confidences, np.ones(images, bool), target) == 0
    assert threshold(confidences[1:], np.ones(images - 1, bool), target) is None


def test_the_threshold_is_above_the_errors():
    confidences = np.linspace(0.9, 1, 1000)
    assert 0.933 < threshold(confidences, confidences > 0.94, 0.9) < 0.945


def test_images_of_equal_confidence_are_on_one_side():
    confidences, correct = np.repeat([0.99, 0.6], 100), np.repeat([True, False], 100)
    assert threshold(confidences, correct, 0.9) == 0.99
    assert threshold(np.full(200, 0.99), correct, 0.9) is None


def test_confidences_that_are_wrong_make_no_promise_that_does_not_hold():
    confidences, correct = np.full(500, 0.999), np.arange(500) % 10 > 0
    assert threshold(confidences, correct, 0.95) is None
    assert threshold(confidences, correct, 0.85) == 0


def test_without_held_out_images_nothing_is_promised():
    assert threshold(np.zeros(0), np.zeros(0, bool), 0.9) is None
