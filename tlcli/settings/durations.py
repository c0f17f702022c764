"""Durations on the command line."""

from __future__ import annotations

import re

from tlcli.errors import UsageError

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def duration_seconds(option: str, text: str) -> float:
    """Return the seconds of a duration such as `90s`, `10m`, or `1.5h`.

    Raises:
        UsageError: `text` is not a duration above zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not seconds:
        raise UsageError(f"{option} is {text!r}; expected a duration above zero, such as 90s, 10m, or 1.5h.")
    return seconds


def describe_duration(seconds: float) -> str:
    """Return a short text, such as `45 s`, `9 min`, or `1 h 30 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
