"""Exceptions of signal handlers are deferred by `defer_interrupts` and never lost."""

import threading

import pytest

from tlcli.cli import main
from tlcli.interrupts import defer_interrupts, raise_or_defer, run_in_thread


class Signal(BaseException):
    """Raised by a signal handler."""


def in_nested_blocks(done):
    with defer_interrupts():
        with defer_interrupts():
            raise_or_defer(Signal())
            done.append("inner")
        done.append("outer")
    done.append("after both")


def in_a_block_that_raises():
    with defer_interrupts():
        raise_or_defer(Signal())
        raise ValueError


def test_an_interrupt_is_deferred_to_the_end_of_the_outermost_block():
    done = []
    with pytest.raises(Signal):
        in_nested_blocks(done)
    assert done == ["inner", "outer"]
    with defer_interrupts():
        done.append("nothing is deferred any more")


def test_an_interrupt_is_raised_even_if_the_block_raises():
    with pytest.raises(Signal) as caught:
        in_a_block_that_raises()
    assert isinstance(caught.value.__context__, ValueError)
    with defer_interrupts():
        pass


def test_run_in_thread_returns_and_raises_what_the_function_does():
    assert run_in_thread(threading.current_thread) is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        run_in_thread(lambda: 1 / 0)


def test_a_library_that_exits_is_not_mistaken_for_a_closed_pipe(monkeypatch):
    def leaving(*_, **__):
        raise SystemExit("a library gives up")

    monkeypatch.setattr(main, "app", leaving)
    with pytest.raises(SystemExit, match="gives up"):
        main.run(["predict"])
