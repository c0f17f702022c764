"""Durations on the command line."""

import pytest

from tlcli.errors import UsageError
from tlcli.settings.durations import describe_duration, duration_seconds


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), (" 2 m ", 120)])
def test_units(text, seconds):
    assert duration_seconds("--budget", text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "0s", "1d", "1h30m", "nan s"])
def test_other_texts_are_refused(text):
    with pytest.raises(UsageError, match=r"--budget is .*such as 90s, 10m"):
        duration_seconds("--budget", text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (45, "45 s"), (119, "119 s"), (600, "10 min"), (5400, "90 min"), (9000, "2 h 30 min")],
)
def test_descriptions(seconds, text):
    assert describe_duration(seconds) == text
