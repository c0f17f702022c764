"""Entry of the `tlcli` command: every way a command can end becomes an exit code and a message."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from types import FrameType

import typer

from tlcli.cli import (  # noqa: F401 - they register
    augment,
    backbones,
    cache,
    cache_features,
    check,
    evaluate,
    export,
    finetune,
    inspect,
    layers,
    predict,
)
from tlcli.cli.app import app, open_terminal
from tlcli.errors import Interrupted, MachineError, TlcliError, UsageError, from_os_error, out_of_memory
from tlcli.interrupts import stop
from tlcli.processes import PeerStopped, launched

GO_ON = {
    "finetune": "Features computed so far are in the cache: the same command goes on from there.",
    "cache-features": "Features computed so far are in the cache: the same command goes on from there.",
    "check": "Features computed so far are in the cache: the same command goes on from there.",
    "export": "Nothing was written: repeat the command.",
    "inspect": "Nothing was written: repeat the command.",
    "augment": "With --out DIR, images made so far are kept: repeat the command with --resume.",
    "predict": "With --out, rows made so far are kept: repeat the command with --resume.",
}


FIRST_SAVES = 10
"""Seconds that the first of several processes has, after Ctrl-C, for the step that it is in and for saving."""
FIRST_SPEAKS = 3.0
"""Seconds after which another one of them says what stopped it."""

# Newer Typers carry a click of their own, so this is how to find the one that counts.
CLICK_ERROR: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


AGAIN = 0.05
"""Seconds after which what was raised in a finalizer, and lost with it, is raised again."""


class Stopped(BaseException):
    """Ctrl-C or SIGTERM. Not a KeyboardInterrupt, which Typer would swallow before we can say how to go on."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def main() -> None:
    """Run tlcli with the process's own arguments, and exit."""
    codes: list[int] = []
    atexit.register(_leave, codes)  # the first to register is the last that is called
    sys.unraisablehook = _lost
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    _open_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf8")  # rows are UTF-8, whatever the terminal's locale
    codes.append(run(sys.argv[1:]))
    sys.exit(codes[0])


def _leave(codes: Sequence[int]) -> None:
    """End the process without taking everything apart, which takes torch two seconds. A bug's traceback has no code."""
    if codes:
        with contextlib.suppress(OSError):  # Python tells of it while it ends the usual way
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(codes[0])


def _open_streams() -> None:
    """Have all three streams, also where whoever started us closed some; nobody reads or writes those."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf8"))  # noqa: PTH123, SIM115 - as long as the process


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    signal.signal(number, signal.SIG_DFL)  # a second one stops at once
    signal.signal(signal.SIGALRM, lambda *_: stop(Stopped(number)))
    if launched().rank:  # the first process saves at the end of its step, for which it needs the others
        signal.alarm(FIRST_SAVES)
    else:
        stop(Stopped(number))


def _lost(unraisable: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised while a finalizer runs, of which torch has many: SIGALRM raises it again."""
    if isinstance(unraisable.exc_value, Stopped):
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        sys.__unraisablehook__(unraisable)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. A bug in tlcli keeps its traceback."""
    try:
        try:
            code = app(list(arguments), prog_name="tlcli", standalone_mode=False)
        except CLICK_ERROR as error:
            if not str(error):
                return UsageError.exit_code  # no command given: the help was shown
            raise UsageError(_usage(error, arguments)) from error
        except Stopped as error:
            known = [GO_ON[name] for name in arguments if name in GO_ON]
            hint = " ".join(getattr(error, "__notes__", known[:1]))
            raise Interrupted(f"stopped. {hint}", exit_code=error.exit_code) from error
        except (BrokenPipeError, SystemExit) as error:
            if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
                raise  # a library's, or that of a shell's completion
            # Whoever read our output has gone (| head), which Typer makes a SystemExit: nobody is left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        except OSError as error:
            raise from_os_error(error) from error
        except Exception as error:
            if isinstance(error, TlcliError) or not out_of_memory(error):
                raise
            raise MachineError("out of memory. Use a smaller --batch-size, or fewer --workers.") from error
    except TlcliError as error:
        notes = [*getattr(error, "__notes__", []), *getattr(error.__cause__, "__notes__", [])]
        if not isinstance(error, Interrupted):
            error.message = " ".join([error.message, *notes])
        _tell(error, arguments)
        return error.exit_code
    return code if isinstance(code, int) else 0


def _tell(error: TlcliError, arguments: Sequence[str]) -> None:
    """Say why the command stops."""
    if isinstance(error, PeerStopped):
        return
    if "--verbose" in arguments and error.__cause__ is not None:
        traceback.print_exception(error.__cause__)
    if (place := launched()).rank:
        _let_the_first_speak()
        error.message = f"rank {place.rank} of {place.size}: {error.message}"
    try:
        open_terminal(quiet=False, verbose=False, json_output="--json" in arguments and not place.rank).error(error)
    except OSError:  # it goes where there is no room: the exit code is all that can be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _let_the_first_speak() -> None:
    """Wait to be ended by torchrun, as happens where all processes fail for one reason: the first one says it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    time.sleep(FIRST_SPEAKS)


def _usage(error: Exception, arguments: Sequence[str]) -> str:
    command = next((f" {name}" for name in arguments if not name.startswith("-")), "")
    known = command.strip() in {
        info.name or info.callback.__name__ for info in app.registered_commands if info.callback
    }
    message = str(error.format_message()) if hasattr(error, "format_message") else str(error)
    return f"{message} See tlcli{command if known else ''} --help."
