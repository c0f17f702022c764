"""Slices: how often they are marked in simulations in which the truth is known, and their order and names."""

import numpy as np
import pytest

from tlcli.inference import slices as inference_slices
from tlcli.inference.slices import LEVEL, NO_SLICE, quarters

TRIALS = 400


def slice_metrics(names, correct):
    return inference_slices.slice_metrics(names, correct, names)


def simulated(generator, accuracies, images):
    """Slices of `images` images each: their names, and whether predictions are right."""
    names = np.repeat([f"s{number}" for number in range(len(accuracies))], images)
    return names.tolist(), generator.random(len(names)) < np.repeat(accuracies, images)


@pytest.mark.parametrize(("slices", "images"), [(2, 50), (4, 100), (20, 30)])
def test_slices_of_equal_accuracy_are_rarely_marked(slices, images):
    generator = np.random.default_rng(0)
    marked = [
        any(row["worse"] for row in slice_metrics(*simulated(generator, [0.9] * slices, images))) for _ in range(TRIALS)
    ]
    assert np.mean(marked) <= LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / TRIALS)


def test_a_worse_slice_is_marked_and_few_others_are():
    generator = np.random.default_rng(1)
    found = [slice_metrics(*simulated(generator, [0.7, *[0.92] * 9], 150)) for _ in range(100)]
    assert np.mean([rows[0]["worse"] for rows in found]) > 0.95
    false = [sum(row["worse"] for row in rows[1:]) / max(1, sum(row["worse"] for row in rows)) for rows in found]
    assert np.mean(false) <= LEVEL


def test_metrics_of_a_slice():
    rows = slice_metrics(["b", "a", "b", "b"], np.array([True, True, False, True]))
    assert [row["name"] for row in rows] == ["b", "a"]
    assert (rows[0]["images"], rows[0]["correct"], rows[0]["accuracy"]) == (3, 2, pytest.approx(2 / 3))
    assert rows[0]["p_value"] == pytest.approx(0.75), "3 of 4 ways to place the error"
    assert rows[1]["p_value"] == 1


def test_a_single_slice_is_never_worse_than_the_rest():
    (row,) = slice_metrics(["a"] * 9, np.zeros(9, bool))
    assert (row["p_value"], row["worse"]) == (1, False)


def test_quarters_have_equal_sizes_and_keep_equal_values_together():
    values = np.arange(100.0)
    names = quarters(values)
    assert [names.count(name) for name in dict.fromkeys(names)] == [25] * 4
    assert list(dict.fromkeys(names)) == ["0 to 24", "25 to 49", "50 to 74", "75 to 99"]
    assert quarters(np.array([1.0, 1.0, 1.0, 1.0, 2.0])) == ["1 to 1"] * 4 + ["2 to 2"]
    assert quarters(np.full(5, 400.0)) == ["400 to 400"] * 5
    assert quarters(np.array([1.0, np.nan])) == ["1 to 1", NO_SLICE]
    assert quarters(np.array([np.nan])) == [NO_SLICE]


def test_ranges_that_look_equal_are_different_slices():
    names = quarters(np.array([1.00001, 1.00002, 1.00003, 1.00004]))
    assert len(set(names)) == 4
