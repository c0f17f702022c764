"""Stretches that Ctrl-C must not break: what the signal wants to raise is raised at their end. Torch-free."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_depth = 0
_waiting: list[BaseException] = []


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """Hold back what `stop` was given until the block has ended."""
    global _depth  # noqa: PLW0603 - signals are a matter of the process
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
    if _waiting and not _depth:
        raise _waiting.pop()


def stop(error: BaseException) -> None:
    """Raise `error`, now or at the end of an unbroken stretch. For a signal's handler."""
    if not _depth:
        raise error
    _waiting.append(error)
