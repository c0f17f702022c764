"""Settings of `label` that contradict each other are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlcli.errors import UsageError
from tlcli.settings import LabelSettings, NetworkSettings
from tlcli.settings.label import class_list


@pytest.mark.parametrize(
    "given",
    [
        {"source": ""},
        {"out": Path("labels.parquet")},
        {"port": 65_536},
        {"port": -1},
        {"network": NetworkSettings(intensity="auto")},
        {"network": NetworkSettings(freeze="none")},
    ],
)
def test_impossible_settings_are_refused(given):
    with pytest.raises(UsageError):
        LabelSettings(**{"source": "photos"} | given)


def test_the_table_depends_on_what_is_done():
    assert LabelSettings(source="photos").out_path(reviews=False) == Path("labels.csv")
    assert LabelSettings(source="photos").out_path(reviews=True) == Path("corrections.csv")
    assert LabelSettings(source="photos", out=Path("x.csv")).out_path(reviews=True) == Path("x.csv")


def test_class_names_are_separated_by_commas():
    assert class_list("car, two words,ä") == ("car", "two words", "ä")
    for text in ("", "a,,b", "a,a"):
        with pytest.raises(UsageError):
            class_list(text)
