"""Confident learning by hand: thresholds, suspects, and who is judged at all."""

import numpy as np
import pytest

from tlcli.checking.confident_learning import judgeable, suspected


def test_an_image_is_suspected_where_another_class_reaches_its_threshold():
    probabilities = np.array(
        [
            [0.9, 0.1],  # class 0, fine: its threshold is (0.9 + 0.8 + 0.1) / 3 = 0.6
            [0.8, 0.2],
            [0.1, 0.9],  # surely 1
            [0.2, 0.8],  # class 1, fine: its threshold is (0.8 + 0.7 + 0.45) / 3 = 0.65
            [0.3, 0.7],
            [0.55, 0.45],  # more probably 0, but 0.55 is less than 0.6
        ]
    )
    found = suspected(probabilities, np.array([0, 0, 0, 1, 1, 1]), np.ones(6, bool))
    assert found.rows.tolist() == [2]
    assert found.suggested.tolist() == [1]
    assert found.margins.tolist() == [pytest.approx(0.8)]


def test_the_surest_comes_first_and_the_likeliest_class_is_suggested():
    probabilities = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]] * 5 + [[0.0, 0.04, 0.96]] * 2)
    labels = np.array([0, 1, 2] * 5 + [0, 1])
    found = suspected(probabilities, labels, np.ones(17, bool))
    assert found.rows.tolist() == [15, 16]
    assert found.suggested.tolist() == [2, 2]
    assert (np.diff(found.margins) <= 0).all()


def test_a_class_that_is_often_in_doubt_asks_for_less():
    sure = np.array([[0.95, 0.05]] * 4 + [[0.4, 0.6]] * 4)
    labels = np.array([0] * 3 + [1] + [1] * 3 + [0])
    found = suspected(sure, labels, np.ones(8, bool))
    assert set(found.rows.tolist()) == {3, 7}, "0.6 is above the mean of class 1, though 0.95 is usual in class 0"


def test_a_class_that_is_nearly_always_sure_asks_for_no_more_than_that():
    probabilities = np.array([[0.99, 0.01]] * 9 + [[0.01, 0.99]] * 9 + [[0.15, 0.85], [0.22, 0.78]])
    labels = np.array([0] * 9 + [1] * 9 + [0] * 2)
    found = suspected(probabilities, labels, np.ones(20, bool))
    assert found.rows.tolist() == [18], "0.85 is enough, though class 1 has a mean of 0.99"


def test_who_is_not_judged_is_not_suspected_and_sets_no_threshold():
    probabilities = np.array([[0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])
    labels = np.array([0, 1, 1])
    assert suspected(probabilities, labels, np.array([False, True, True])).rows.tolist() == []
    assert suspected(probabilities, labels, np.array([True, False, False])).rows.tolist() == []


def test_a_label_is_judged_where_the_other_folds_know_its_class():
    labels = np.array([0] * 5 + [1] * 3)
    folds = np.array([0, 1, 2, 3, 3, 0, 1, 2])
    assert judgeable(labels, folds, classes=3, least=4).tolist() == [True, True, True, False, False, *[False] * 3]
    assert judgeable(labels, folds, classes=3, least=2).all()
    assert judgeable(np.array([], int), np.array([], int), classes=2, least=1).tolist() == []
