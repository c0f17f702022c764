"""The rows of predict."""

import pytest

from tlcli.inference.rows import RowOptions, is_unknown, row_columns, row_status


def options(**changes):
    usual = {"top": 1, "probabilities": False, "min_confidence": None, "novelty": False, "unknown_rate": 0.01}
    return RowOptions(**usual | changes)


def columns(**changes):
    return row_columns(["cat", "dog"], options(**changes))


def test_columns():
    assert columns() == ["path", "label", "confidence", "status", "error"]
    assert columns(top=2, probabilities=True)[5:] == ["label_2", "confidence_2", "p:cat", "p:dog"]
    assert columns(top=9)[5:] == ["label_2", "confidence_2"]
    assert columns(top=2, novelty=True, set_limit=0.5)[5:] == ["novelty", "set", "label_2", "confidence_2"]


@pytest.mark.parametrize(
    ("confidence", "novelty", "status"),
    [
        (0.95, None, "ok"),
        (0.95, 0.98, "ok"),
        (0.5, 0.98, "review"),
        (0.5, None, "review"),
        (0.95, 0.991, "unknown"),
        (0.5, 0.991, "unknown"),
    ],
)
def test_status(confidence, novelty, status):
    assert row_status("cat", confidence, novelty, options(min_confidence=0.9, novelty=True)) == status


def test_no_novelty_is_unknown_at_rate_0():
    assert not is_unknown(1.0, 0)
    assert is_unknown(1.0, 0.000001)


def test_each_label_has_its_threshold():
    thresholds = {"dog": 0.8, "eel": float("inf")}
    found = options(thresholds=thresholds, min_confidence=0.5)
    assert [row_status(label, 0.7, None, found) for label in ("cat", "dog", "eel")] == ["ok", "review", "review"]
    assert row_status("cat", 0.4, None, found) == "review"
    assert row_status("eel", 1.0, None, found) == "review"
