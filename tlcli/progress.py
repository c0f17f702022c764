"""Progress reporting: a small protocol that `console` implements and library callers may implement or ignore."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int], None]
"""Called with the number of steps completed since the last call."""


class Reporter(Protocol):
    """Receives progress and messages from a use case."""

    def task(self, name: str, total: int, unit: str = "images") -> AbstractContextManager[Advance]:
        """Start a task of `total` steps, which is shown with its rate and remaining time."""

    def note(self, text: str) -> None:
        """Show one line of information."""

    def warn(self, text: str) -> None:
        """Show one line as a warning."""

    def detail(self, text: str) -> None:
        """Show one line if the user asked for details (`--verbose`)."""


class OnlyDetails:
    """A reporter for steps of a larger task: notes become details, and progress is not shown."""

    def __init__(self, report: Reporter) -> None:
        self.detail = self.note = report.detail
        self.warn = report.warn

    def task(self, name: str, total: int, unit: str = "images") -> AbstractContextManager[Advance]:
        """Ignore the task."""
        del name, total, unit
        return nullcontext(lambda _: None)


class Silent:
    """A reporter that shows nothing."""

    def task(self, name: str, total: int, unit: str = "images") -> AbstractContextManager[Advance]:
        """Ignore the task."""
        del name, total, unit
        return nullcontext(lambda _: None)

    def note(self, text: str) -> None:
        """Ignore the line."""

    def warn(self, text: str) -> None:
        """Ignore the line."""

    def detail(self, text: str) -> None:
        """Ignore the line."""
