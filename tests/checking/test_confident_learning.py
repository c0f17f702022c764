"""Confident learning with manually computed thresholds and suspects."""

import numpy as np
import pytest

from tlcli.checking.confident_learning import checkable, find_suspects


def test_an_image_is_a_suspect_if_another_class_reaches_its_threshold():
    probabilities = np.array(
        [
            [0.9, 0.1],  # class 0, fine: its threshold is (0.9 + 0.8 + 0.1) / 3 = 0.6
            [0.8, 0.2],
            [0.1, 0.9],  # clearly class 1
            [0.2, 0.8],  # class 1, fine: its threshold is (0.8 + 0.7 + 0.45) / 3 = 0.65
            [0.3, 0.7],
            [0.55, 0.45],  # class 0 is more probable, but 0.55 is less than 0.6
        ]
    )
    found = find_suspects(probabilities, np.array([0, 0, 0, 1, 1, 1]), np.ones(6, bool))
    assert found.rows.tolist() == [2]
    assert found.suggested.tolist() == [1]
    assert found.margins.tolist() == [pytest.approx(0.8)]


def test_suspects_are_sorted_by_margin_and_the_most_probable_class_is_suggested():
    probabilities = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]] * 5 + [[0.0, 0.04, 0.96]] * 2)
    labels = np.array([0, 1, 2] * 5 + [0, 1])
    found = find_suspects(probabilities, labels, np.ones(17, bool))
    assert found.rows.tolist() == [15, 16]
    assert found.suggested.tolist() == [2, 2]
    assert (np.diff(found.margins) <= 0).all()


def test_a_difficult_class_has_a_lower_threshold():
    sure = np.array([[0.95, 0.05]] * 4 + [[0.4, 0.6]] * 4)
    labels = np.array([0] * 3 + [1] + [1] * 3 + [0])
    found = find_suspects(sure, labels, np.ones(8, bool))
    assert set(found.rows.tolist()) == {3, 7}, "0.6 exceeds the mean of class 1, although class 0 has 0.95"


def test_the_threshold_has_an_upper_limit():
    probabilities = np.array([[0.99, 0.01]] * 9 + [[0.01, 0.99]] * 9 + [[0.15, 0.85], [0.22, 0.78]])
    labels = np.array([0] * 9 + [1] * 9 + [0] * 2)
    found = find_suspects(probabilities, labels, np.ones(20, bool))
    assert found.rows.tolist() == [18], "0.85 is enough, although class 1 has a mean of 0.99"


def test_unchecked_images_are_no_suspects_and_do_not_affect_thresholds():
    probabilities = np.array([[0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])
    labels = np.array([0, 1, 1])
    assert find_suspects(probabilities, labels, np.array([False, True, True])).rows.tolist() == []
    assert find_suspects(probabilities, labels, np.array([True, False, False])).rows.tolist() == []


def test_labels_are_checked_if_the_other_folds_have_enough_images_of_the_class():
    labels = np.array([0] * 5 + [1] * 3)
    folds = np.array([0, 1, 2, 3, 3, 0, 1, 2])
    assert checkable(labels, folds, classes=3, least=4).tolist() == [True, True, True, False, False, *[False] * 3]
    assert checkable(labels, folds, classes=3, least=2).all()
    assert checkable(np.array([], int), np.array([], int), classes=2, least=1).tolist() == []
