"""Statistics of paired accuracies, against simulations in which the truth is known."""

from collections import Counter

import numpy as np
import pytest

from tlcli.inference.paired_accuracy import (
    LEVEL,
    POWER,
    difference_interval,
    images_needed,
    mcnemar_test,
)

TRUTHS = [(0.05, 0.05), (0.02, 0.08), (0.1, 0.3), (0.0, 0.05), (0.004, 0.01)]
"""Probabilities that only A, and only B, predicts an image correctly."""
SIMULATIONS = 3000


def simulated(truth, images, *, seed=0):
    """Draw how many images only A and only B predicts correctly, often: return how often each pair was drawn."""
    only_a, only_b = truth
    probabilities = [only_a, only_b, 1 - only_a - only_b]
    drawn = np.random.default_rng(seed).multinomial(images, probabilities, SIMULATIONS)[:, :2]
    return Counter(map(tuple, drawn.tolist()))


def share(found, holds):
    """Return the share of simulations for which `holds(only_a, only_b)`."""
    return sum(times for counts, times in found.items() if holds(*counts)) / SIMULATIONS


def rejects(only_a, only_b):
    return mcnemar_test(only_a, only_b) < LEVEL


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 2 / 2**5), (5, 0, 2 / 2**5), (1, 7, 2 * (1 + 8) / 2**8)],
)
def test_the_p_value_is_that_of_the_binomial_distribution(only_a, only_b, p_value):
    assert mcnemar_test(only_a, only_b) == pytest.approx(p_value)


@pytest.mark.parametrize("images", [30, 100, 372, 2000])
@pytest.mark.parametrize("differing", [0.01, 0.1, 0.4])
def test_runs_of_equal_accuracy_are_rarely_called_different(images, differing):
    """The size of an exact test is at most its level; 0.008 are two standard errors of the simulation."""
    assert share(simulated((differing / 2, differing / 2), images), rejects) <= LEVEL + 0.008


@pytest.mark.parametrize("images", [50, 372, 2000])
@pytest.mark.parametrize("truth", TRUTHS)
def test_the_interval_covers_the_true_difference(images, truth):
    difference = truth[1] - truth[0]

    def covers(only_a, only_b):
        low, high = difference_interval(only_a, only_b, images)
        return low <= difference <= high

    assert share(simulated(truth, images), covers) >= 1 - LEVEL - 0.012


@pytest.mark.parametrize("images", [1, 7, 100, 100_000])
def test_the_interval_contains_the_estimate_and_excludes_zero_exactly_if_the_test_rejects(images):
    most = min(images, 40)
    for only_a in range(most + 1):
        for only_b in range(most + 1 - only_a):
            low, high = difference_interval(only_a, only_b, images)
            assert -1 <= low <= (only_b - only_a) / images <= high <= 1
            assert (low <= 0 <= high) == (mcnemar_test(only_a, only_b) >= LEVEL)


def test_exchanging_the_runs_changes_the_sign():
    low, high = difference_interval(3, 11, 200)
    assert difference_interval(11, 3, 200) == pytest.approx((-high, -low))
    assert images_needed(3, 11, 200) == images_needed(11, 3, 200)


SLOW = pytest.param(100, 130, 3000, marks=pytest.mark.slow)


@pytest.mark.parametrize(("only_a", "only_b", "images"), [(10, 18, 372), (20, 30, 372), SLOW])
def test_the_number_of_images_gives_the_promised_power(only_a, only_b, images):
    truth = only_a / images, only_b / images
    needed = images_needed(only_a, only_b, images)
    assert share(simulated(truth, needed), rejects) == pytest.approx(POWER, abs=0.03)
    assert share(simulated(truth, needed // 2), rejects) < 0.6


def test_no_number_of_images_suffices_without_a_difference():
    assert images_needed(4, 4, 100) is None
    assert images_needed(0, 0, 100) is None


def test_more_images_are_needed_than_there_are_if_the_test_does_not_reject():
    for only_a in range(15):
        for only_b in range(15):
            if only_a != only_b and mcnemar_test(only_a, only_b) >= LEVEL:
                assert images_needed(only_a, only_b, 372) > 372
