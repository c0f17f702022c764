"""Sections of code that a signal must not interrupt: its exception is deferred, or raised elsewhere. Torch-free."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

_depth = 0
_deferred: list[BaseException] = []


@contextlib.contextmanager
def defer_interrupts() -> Iterator[None]:
    """Defer the exceptions passed to `raise_or_defer` until the outermost such block has ended."""
    global _depth  # noqa: PLW0603 - signal handlers belong to the process
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _deferred and not _depth:  # also if the block raised; its exception becomes the context
            raise _deferred.pop()


def raise_or_defer(error: BaseException) -> None:
    """Raise `error` now, or at the end of the current `defer_interrupts` block. Called by signal handlers."""
    if not _depth:
        raise error
    _deferred.append(error)


def run_in_thread(function: Callable[[], T], until: threading.Event | None = None) -> T:
    """Call a function in a new thread and wait for it, because signals are handled in the main thread only.

    An exception that a signal handler raises inside the C++ code of Ray or torch aborts the process, and torch's
    exporters may lose it or replace it. If the wait is interrupted, the thread ends with the process.

    Args:
        function: The function to call.
        until: Keep the thread alive until this event: processes that a thread started end with it.
    """
    done: Future[T] = Future()

    def call() -> None:
        try:
            done.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised again by the waiting thread
            done.set_exception(error)
        if until is not None:
            until.wait()

    threading.Thread(target=call, daemon=True).start()
    return done.result()
