"""Code that Ctrl-C must not break: what the signal wants to raise is raised later, or elsewhere. Torch-free."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

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
        if _waiting and not _depth:  # also where the block raised, which is the context then
            raise _waiting.pop()


def stop(error: BaseException) -> None:
    """Raise `error`, now or at the end of an unbroken stretch. For a signal's handler."""
    if not _depth:
        raise error
    _waiting.append(error)


def aside(function: Callable[[], T], until: threading.Event | None = None) -> T:
    """Call a function in a thread of its own, and wait for it: signals reach the main thread only.

    Raised within Ray's or torch's C++ parts, what a signal's handler raises aborts the process; torch's exporters also
    lose it, or make an error of their own of it. A wait that is interrupted leaves the thread to end with the process.

    Args:
        function: What to call.
        until: Keep the thread until then; the processes that a thread started end with it.
    """
    done: Future[T] = Future()

    def call() -> None:
        try:
            done.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            done.set_exception(error)
        if until is not None:
            until.wait()

    threading.Thread(target=call, daemon=True).start()
    return done.result()
