"""Prediction sets: their coverage in a simulation in which the truth is known, and their form."""

import numpy as np
import pytest

from tlcli.errors import DataError
from tlcli.inference.prediction_sets import join_labels, prediction_set, set_limit
from tlcli.runs.held_out_predictions import HeldOutPredictions

CLASSES, TRIALS = 6, 200


def simulated(generator, images, *, overconfident):
    """Images whose true class is drawn from known probabilities; the stated ones are too high at the top."""
    logits = generator.normal(size=(images, CLASSES)) * 2.5
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (truth.cumsum(axis=1) < generator.random((images, 1))).sum(axis=1).clip(max=CLASSES - 1)
    stated = np.exp(overconfident * logits)
    stated = (stated / stated.sum(axis=1, keepdims=True)).astype(np.float32)
    return HeldOutPredictions(labels=labels, predicted=stated.argmax(axis=1), probabilities=stated)


def sets_of(images, limit):
    return [
        prediction_set(label, row, limit)
        for label, row in zip(images.predicted.tolist(), images.probabilities, strict=True)
    ]


@pytest.mark.parametrize("overconfident", [0.5, 1, 2])
@pytest.mark.parametrize(("images", "coverage"), [(50, 0.9), (400, 0.95)])
def test_sets_contain_the_truth_as_often_as_promised(images, coverage, overconfident):
    generator = np.random.default_rng(0)
    found = []
    for _ in range(TRIALS):
        limit = set_limit(simulated(generator, images, overconfident=overconfident), coverage)
        new = simulated(generator, 100, overconfident=overconfident)
        found += [label in chosen for label, chosen in zip(new.labels.tolist(), sets_of(new, limit), strict=True)]
    assert coverage - 0.01 <= np.mean(found) <= coverage + 1 / (images + 1) + 0.01


def test_difficult_images_have_larger_sets():
    images = simulated(np.random.default_rng(1), 2000, overconfident=1)
    sizes = np.array([len(chosen) for chosen in sets_of(images, set_limit(images, 0.95))])
    confidences = images.confidences
    assert sizes.min() == 1
    assert sizes[confidences < 0.5].mean() > sizes[confidences > 0.9].mean() + 1


def test_a_set_has_the_predicted_class_first_and_stops_at_the_limit():
    probabilities = np.array([0.1, 0.5, 0.3, 0.1], np.float32)
    assert prediction_set(1, probabilities, 0.0) == [1]
    assert prediction_set(1, probabilities, 0.49) == [1]
    assert prediction_set(1, probabilities, 0.51) == [1, 2]
    assert prediction_set(1, probabilities, 0.85) == [1, 2, 0]
    assert prediction_set(1, probabilities, 1.0) == [1, 2, 0, 3]
    assert prediction_set(2, probabilities, 0.2) == [2], "with --balance, another class may be more probable"
    assert prediction_set(0, np.ones(1, np.float32), 0.5) == [0]


def test_too_few_held_out_images_are_refused():
    images = simulated(np.random.default_rng(2), 18, overconfident=1)
    with pytest.raises(DataError, match=r"--sets 0\.95 needs 19 held-out images, but the run has 18"):
        set_limit(images, 0.95)
    assert set_limit(images, 0.9) > 0


def test_labels_are_joined_unambiguously():
    assert join_labels(["cat", "dog"]) == "cat|dog"
    assert join_labels(["a|b", "c\\"]) == "a\\|b|c\\\\"
