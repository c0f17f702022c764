"""What a report says about precision, prediction sets, and unknown images, computed from known predictions."""

import numpy as np
import pytest

from tlcli.inference.novelty import FeatureBank, Novelty
from tlcli.reports.decisions import report_decisions
from tlcli.runs.held_out_predictions import HeldOutPredictions
from tlcli.training.novelty import FittedNovelty

CLASSES = ("a", "b")


def predictions(confidences, right):
    confidences = np.asarray(confidences, np.float32)
    return HeldOutPredictions(
        labels=np.where(right, 0, 1),
        predicted=np.zeros(len(confidences), np.int64),
        probabilities=np.stack([confidences, 1 - confidences], axis=1),
    )


def test_the_curve_ends_with_the_accuracy_and_starts_with_the_most_confident():
    found = report_decisions(predictions([0.9, 0.6, 0.8, 0.7], [True, False, True, True]), None, CLASSES, None)
    assert found.precision["curve"] == [[0.25, 1.0], [0.5, 1.0], [0.75, 1.0], [1.0, 0.75]]
    assert [row["classes"] for row in found.precision["targets"]] == [0] * 4
    assert found.precision["targets"][0] == {"target": 0.9, "automatic": 0.0, "precision": None, "classes": 0}
    assert (found.sets, found.novelty) == ([], None)


def test_promises_and_sets_of_many_images():
    right = np.arange(1000) % 50 > 0
    held_out = predictions(np.where(np.arange(1000) % 4, 0.99, 0.55), right)
    found = report_decisions(held_out, held_out, CLASSES, None)
    assert found.precision["targets"][0]["automatic"] == 1
    assert found.precision["targets"][0]["precision"] == pytest.approx(0.98)
    assert [row["coverage"] for row in found.sets] == [0.9, 0.95, 0.99]
    assert found.sets[0]["size"] == 1
    assert found.sets[-1]["covered"] >= 0.99
    assert len(found.precision["curve"]) == 2, "equal confidences stay together"


def test_without_held_out_images_nothing_is_said():
    found = report_decisions(predictions([], []), None, CLASSES, None)
    assert (found.precision, found.sets, found.novelty) == (None, [], None)


@pytest.mark.parametrize(("count", "is_limited"), [(500, True), (30, False)])
def test_the_histogram_has_all_known_images(count, is_limited):
    scores = np.random.default_rng(0).normal(5, 1, count)
    bank = FeatureBank(center=np.zeros(2, np.float32), directions=None, vectors=np.ones((20, 2), np.float32))
    novelty = Novelty(bank=bank, scale=np.ones(2), known=np.sort(scores))
    fitted = FittedNovelty(novelty=novelty, rows=list(range(count)), scores=scores)
    found = report_decisions(predictions([], []), None, CLASSES, fitted).novelty
    assert sum(found["counts"]) == found["images"] == count
    assert len(found["edges"]) == len(found["counts"]) + 1
    assert (found["unknown"] is not None) is is_limited
    if is_limited:
        assert np.mean(scores - np.median(scores) >= found["unknown"]) == pytest.approx(0.01, abs=0.003)
