"""What a signal's handler raises comes after stretches that it must not break, and is never lost."""

import threading

import pytest

from tlcli.cli import main
from tlcli.interrupts import aside, stop, unbroken


class Signal(BaseException):
    """Raised by a signal's handler."""


def in_two_stretches(done):
    with unbroken():
        with unbroken():
            stop(Signal())
            done.append("inner")
        done.append("outer")
    done.append("behind them")


def in_one_that_fails():
    with unbroken():
        stop(Signal())
        raise ValueError


def test_it_waits_for_the_end_of_the_outermost_stretch():
    done = []
    with pytest.raises(Signal):
        in_two_stretches(done)
    assert done == ["inner", "outer"]
    with unbroken():
        done.append("nothing waits any more")


def test_it_comes_though_the_stretch_failed():
    with pytest.raises(Signal) as caught:
        in_one_that_fails()
    assert isinstance(caught.value.__context__, ValueError)
    with unbroken():
        pass


def test_aside_gives_and_raises_what_the_function_does():
    assert aside(threading.current_thread) is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 / 0)


def test_what_a_library_exits_with_is_not_taken_for_a_reader_that_went_away(monkeypatch):
    def leaving(*_, **__):
        raise SystemExit("a library gives up")

    monkeypatch.setattr(main, "app", leaving)
    with pytest.raises(SystemExit, match="gives up"):
        main.run(["predict"])
