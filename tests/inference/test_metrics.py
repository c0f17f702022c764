"""Metrics against scikit-learn or values computed by hand."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from tlcli.inference.metrics import Metrics, wilson_interval


def images(count: int, classes: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count)
    scores = rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels


def result(probabilities, labels):
    metrics = Metrics([f"class {c}" for c in range(probabilities.shape[1])])
    metrics.update(probabilities, labels)
    return metrics.result()


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_agrees_with_scikit_learn(classes):
    p, y = images(500, classes)
    got, predicted = result(p, y), p.argmax(axis=1)
    names = list(range(classes))
    assert got["images"] == 500
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(y, predicted))
    assert got["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, predicted))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(y, predicted, average="macro"))
    exact = p.astype(float) / p.astype(float).sum(axis=1, keepdims=True)
    assert got["loss"] == pytest.approx(sk.log_loss(y, exact, labels=names), rel=1e-5)
    assert got["confusion"] == sk.confusion_matrix(y, predicted, labels=names).tolist()
    precision, recall, f1, support = sk.precision_recall_fscore_support(y, predicted)
    for c in names:
        figures = got["per_class"][f"class {c}"]
        assert figures == pytest.approx(
            {"precision": precision[c], "recall": recall[c], "f1": f1[c], "images": support[c]}
        )
    if classes > 5:
        assert got["top5_accuracy"] == pytest.approx(sk.top_k_accuracy_score(y, p, k=5, labels=names))
    else:
        assert got["top5_accuracy"] == 1.0


def test_batches_give_the_same_result_as_one_update():
    p, y = images(301, 7)
    whole, parts = Metrics("abcdefg"), Metrics("abcdefg")
    whole.update(p, y)
    for start in range(0, 301, 50):
        parts.update(p[start : start + 50], y[start : start + 50])
    parts.update(p[:0], y[:0])
    one, other = whole.result(), parts.result()
    assert one.pop("loss") == pytest.approx(other.pop("loss"))
    assert one.pop("ece") == pytest.approx(other.pop("ece"))
    assert one == other


def test_result_is_plain_json():
    text = json.dumps(result(*images(20, 3)), allow_nan=False)
    assert json.loads(text) == result(*images(20, 3))


def test_metrics_of_no_images_are_none():
    got = Metrics(["cat", "dog"]).result()
    assert got["images"] == 0
    figures = ("accuracy", "interval", "balanced_accuracy", "top5_accuracy", "macro_f1", "loss", "ece")
    assert all(got[name] is None for name in figures)
    assert got["majority"] == {"name": None, "accuracy": None}
    assert got["confusion"] == [[0, 0], [0, 0]]
    assert got["per_class"]["cat"] == {"precision": None, "recall": None, "f1": None, "images": 0}
    assert got["confidence"][0] == {"threshold": 0.5, "share": None, "accuracy": None}
    json.dumps(got, allow_nan=False)


def test_means_ignore_classes_without_images():
    p = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    got = result(p, np.array([0, 0, 1, 1]))
    assert got["per_class"]["class 2"] == {"precision": 0.0, "recall": None, "f1": 0.0, "images": 0}
    assert got["per_class"]["class 3"] == {"precision": None, "recall": None, "f1": None, "images": 0}
    assert got["balanced_accuracy"] == pytest.approx((1 + 0.5) / 2)
    assert got["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)


def test_a_class_never_predicted_has_no_precision():
    got = result(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]))
    assert got["per_class"]["class 1"] == {"precision": None, "recall": 0.0, "f1": 0.0, "images": 1}


def test_ties_are_won_by_the_first_class():
    got = result(np.full((7, 7), 1 / 7), np.arange(7))
    assert [row[0] for row in got["confusion"]] == [1] * 7
    assert got["top5_accuracy"] == pytest.approx(5 / 7)


def test_majority_is_the_most_frequent_class():
    got = result(np.full((4, 3), 1 / 3), np.array([2, 2, 1, 2]))
    assert got["majority"] == {"name": "class 2", "accuracy": 0.75}


def test_ece_of_known_confidences():
    p = np.array([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.58, 0.42]])
    # Bins (14/15, 1] and (8/15, 9/15]: |1 - 1.9| and |2 - 1.18|, over 4 images.
    assert result(p, np.array([0, 1, 0, 0]))["ece"] == pytest.approx((0.9 + 0.82) / 4)


def test_zero_probability_of_the_true_class_gives_a_finite_loss():
    assert result(np.array([[1.0, 0.0]]), np.array([1]))["loss"] == pytest.approx(27.631, abs=1e-3)


def test_confidence_counts_images_at_or_above_the_threshold():
    p = np.array([[0.95, 0.05], [0.9, 0.1], [0.8, 0.2], [0.6, 0.4]], dtype=np.float32)
    rows = {row["threshold"]: row for row in result(p, np.array([0, 1, 0, 0]))["confidence"]}
    assert list(rows) == [0.5, 0.7, 0.8, 0.9, 0.95, 0.99]
    assert rows[0.9] == {"threshold": 0.9, "share": 0.5, "accuracy": 0.5}
    assert rows[0.8] == {"threshold": 0.8, "share": 0.75, "accuracy": pytest.approx(2 / 3)}
    assert rows[0.99] == {"threshold": 0.99, "share": 0.0, "accuracy": None}


def test_wilson_interval_of_known_cases():
    assert wilson_interval(15, 15) == pytest.approx((0.7961, 1.0), abs=1e-4)
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@given(images=st.integers(1, 10_000), share=st.floats(0, 1))
def test_wilson_interval_contains_the_proportion(images, share):
    correct = round(share * images)
    low, high = wilson_interval(correct, images)
    assert 0 <= low <= correct / images + 1e-12
    assert correct / images - 1e-12 <= high <= 1


def test_does_not_import_torch():
    code = "import sys, tlcli.inference.metrics, tlcli.inference.calibration; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reliability_lists_the_means_of_bins_with_images():
    confidence, correct = np.array([0.51, 0.53, 0.97, 0.99]), np.array([True, False, True, True])
    p = np.stack([confidence, 1 - confidence], axis=1)
    found = result(p, np.where(correct, 0, 1))
    assert [row["images"] for row in found["reliability"]] == [2, 2]
    assert [row["accuracy"] for row in found["reliability"]] == [0.5, 1.0]
    assert [row["confidence"] for row in found["reliability"]] == pytest.approx([0.52, 0.98])
    gaps = [row["images"] / 4 * abs(row["confidence"] - row["accuracy"]) for row in found["reliability"]]
    assert found["ece"] == pytest.approx(sum(gaps))
