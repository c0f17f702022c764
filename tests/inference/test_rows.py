"""The rows of predict."""

from tlcli.inference.rows import row_columns


def test_columns():
    assert row_columns(["cat", "dog"], top=1, probabilities=False) == ["path", "label", "confidence", "status", "error"]
    assert row_columns(["cat", "dog"], top=2, probabilities=True)[5:] == ["label_2", "confidence_2", "p:cat", "p:dog"]
    assert row_columns(["cat", "dog"], top=9, probabilities=False)[5:] == ["label_2", "confidence_2"]
