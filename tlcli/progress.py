"""How long work reports: a small protocol that `console` draws and a library caller may ignore."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int], None]
"""Called with how many more are done."""


class Reporter(Protocol):
    """Where a use case sends what a person may want to know while it works."""

    def task(self, name: str, total: int, unit: str = "images") -> AbstractContextManager[Advance]:
        """A stretch of work with `total` steps, shown with its rate and time left."""

    def note(self, text: str) -> None:
        """One line of information."""

    def warn(self, text: str) -> None:
        """One line that should not be missed."""

    def detail(self, text: str) -> None:
        """One line for those who ask for more (`--verbose`)."""


class Silent:
    """A reporter that says nothing."""

    def task(self, name: str, total: int, unit: str = "images") -> AbstractContextManager[Advance]:
        """Count nothing."""
        del name, total, unit
        return nullcontext(lambda _: None)

    def note(self, text: str) -> None:
        """Drop the line."""

    def warn(self, text: str) -> None:
        """Drop the line."""

    def detail(self, text: str) -> None:
        """Drop the line."""
