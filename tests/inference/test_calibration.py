"""Fitting the temperature, and calibrated probabilities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize_scalar

from tlcli.inference.calibration import calibrated_probabilities, fit_temperature


def loss(logits, labels, temperature) -> float:
    likelihood = calibrated_probabilities(logits, temperature)[np.arange(len(labels)), labels].astype(float)
    return float(-np.log(likelihood).mean())


def drawn(count: int, classes: int, *, temperature: float, seed: int = 0):
    """Return logits, and labels drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes)) * 3 * temperature
    noise = rng.gumbel(size=(count, classes))
    return logits, (logits / temperature + noise).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_recovers_the_temperature_of_generated_labels(temperature):
    assert fit_temperature(*drawn(20_000, 5, temperature=temperature)) == pytest.approx(temperature, rel=0.03)


def test_with_many_images_equals_maximum_likelihood():
    logits, labels = drawn(20_000, 3, temperature=2.0)
    plain = minimize_scalar(lambda t: loss(logits, labels, t), bounds=(0.05, 20), method="bounded").x
    assert fit_temperature(logits, labels) == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("margin", [0.2, 3.0, 100.0])
def test_fifteen_correct_images_do_not_give_certainty(margin):
    labels = np.arange(15) % 3
    logits = margin * np.eye(3)[labels]
    confidence = calibrated_probabilities(logits, fit_temperature(logits, labels)).max(axis=1)
    assert (confidence < 0.99).all()
    # Laplace's rule, (15 + 1) / (15 + 2), with two other classes; margins of 0.2 and 100 hit the bounds of T.
    if margin == 3.0:
        assert confidence == pytest.approx(np.full(15, 0.89), abs=0.06)


def test_all_wrong_gives_the_maximum_temperature():
    labels = np.arange(30) % 3
    logits = 5 * np.eye(3)[(labels + 1) % 3]
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(20.0)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 1)])
def test_no_images_or_a_single_class_gives_one(shape):
    assert fit_temperature(np.zeros(shape), np.zeros(shape[0], dtype=int)) == 1.0


def test_equal_logits_give_one():
    assert fit_temperature(np.zeros((6, 3)), np.arange(6) % 3) == 1.0


@settings(deadline=None)
@given(
    logits=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 12), st.integers(2, 5)), elements=st.floats(-1e6, 1e6, width=32)
    ),
    seed=st.integers(0, 99),
)
def test_is_within_bounds_and_deterministic(logits, seed):
    labels = np.random.default_rng(seed).integers(logits.shape[1], size=len(logits))
    temperature = fit_temperature(logits, labels)
    assert 0.05 <= temperature <= 20
    assert temperature == fit_temperature(logits, labels)


@given(
    logits=hnp.arrays(
        np.float32, st.tuples(st.integers(0, 8), st.integers(1, 6)), elements=st.floats(-(2.0**100), 2.0**100, width=32)
    ),
    temperature=st.floats(0.05, 20),
)
def test_probabilities_sum_to_one_and_keep_the_predicted_class(logits, temperature):
    result = calibrated_probabilities(logits, temperature)
    assert result.dtype == np.float32
    assert result.shape == logits.shape
    assert result.sum(axis=1) == pytest.approx(np.ones(len(logits)), abs=1e-5)
    for row, scores in zip(result, logits, strict=True):
        assert row[scores.argmax()] == row.max()


def test_probabilities_of_known_logits():
    result = calibrated_probabilities(np.log([[1.0, 2.0, 5.0]]) * 2, 2.0)
    assert result[0].tolist() == pytest.approx([0.125, 0.25, 0.625])
