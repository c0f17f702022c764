"""Checks of single settings that quote the option and its value."""

from __future__ import annotations

from tlcli.errors import UsageError


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise UsageError unless `value` is allowed."""
    if value not in allowed:
        raise UsageError(f"{option} is {value!r}; expected one of {', '.join(allowed)}.")


def at_least(option: str, value: int | None, least: int) -> None:
    """Raise UsageError if `value` is set and too small."""
    if value is not None and value < least:
        raise UsageError(f"{option} is {value}; expected at least {least}.")


def port_number(option: str, value: int) -> None:
    """Raise UsageError unless a value is the number of a port, or 0."""
    if not 0 <= value <= 65_535:
        raise UsageError(f"{option} is {value}; expected 0 to 65535.")
