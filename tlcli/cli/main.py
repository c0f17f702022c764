"""The entry point of the `tlcli` command: turns every way a command can end into an exit code and a message."""

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

from tlcli.cli import (  # noqa: F401 - imported to register the commands
    augment,
    backbones,
    benchmark,
    cache,
    cache_features,
    check,
    compare,
    evaluate,
    export,
    finetune,
    inspect,
    label,
    layers,
    predict,
    serve,
    similar,
)
from tlcli.cli.app import app, open_terminal
from tlcli.cli.suggestions import suggest
from tlcli.errors import Interrupted, MachineError, TlcliError, UsageError, from_os_error, out_of_memory
from tlcli.interrupts import raise_or_defer
from tlcli.processes import PeerStopped, launched

RESUME_HINTS = {
    "finetune": "Features computed so far are cached: repeat the command to continue.",
    "cache-features": "Features computed so far are cached: repeat the command to continue.",
    "check": "Features computed so far are cached: repeat the command to continue.",
    "benchmark": "Nothing was written: repeat the command.",
    "compare": "Nothing was written: repeat the command.",
    "export": "Nothing was written: repeat the command.",
    "inspect": "Nothing was written: repeat the command.",
    "similar": "Features computed so far are cached: repeat the command.",
    "label": "Every label is saved: repeat the command to continue.",
    "serve": "Requests in progress were answered.",
    "augment": "With --out DIR, finished images are kept: repeat the command with --resume.",
    "predict": "With --out, finished rows are kept: repeat the command with --resume.",
}


SAVING_SECONDS = 10
"""How long other ranks wait after a signal while rank 0 finishes its step, for which it needs them, and saves."""
REPORTING_SECONDS = 3.0
"""How long other ranks wait before they report an error, so that rank 0 reports an error of all ranks first."""

# Newer versions of Typer vendor click, so find the class that Typer raises.
CLICK_ERROR: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


RERAISE_SECONDS = 0.05
"""How soon an exception that Python dropped in a finalizer is raised again."""


class Stopped(BaseException):
    """SIGINT or SIGTERM. Not a KeyboardInterrupt, which Typer would handle before the hint on resuming is printed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def main() -> None:
    """Run tlcli with the process's own arguments, and exit."""
    codes: list[int] = []
    atexit.register(_leave, codes)  # registered first, so called last
    sys.unraisablehook = _reraise_stopped
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    _open_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf8")  # rows are UTF-8, whatever the terminal's locale
    codes.append(run(sys.argv[1:]))
    sys.exit(codes[0])


def _leave(codes: Sequence[int]) -> None:
    """Exit without the interpreter's cleanup, which takes two seconds with torch. A crash leaves `codes` empty."""
    if codes:
        with contextlib.suppress(OSError):  # Python reports it during its normal exit
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(codes[0])


def _open_streams() -> None:
    """Replace standard streams that the parent process closed with the null device."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf8"))  # noqa: PTH123, SIM115 - open until exit


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
    signal.signal(signal.SIGALRM, lambda *_: raise_or_defer(Stopped(number)))
    if launched().rank:  # rank 0 saves at the end of its step, for which it needs the other ranks
        signal.alarm(SAVING_SECONDS)
    else:
        raise_or_defer(Stopped(number))


def _reraise_stopped(unraisable: sys.UnraisableHookArgs) -> None:
    """Raise `Stopped` again, by SIGALRM, if Python dropped it in a finalizer (torch has many)."""
    if isinstance(unraisable.exc_value, Stopped):
        signal.setitimer(signal.ITIMER_REAL, RERAISE_SECONDS)
    else:
        sys.__unraisablehook__(unraisable)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Unexpected exceptions propagate with their traceback."""
    try:
        try:
            code = app(list(arguments), prog_name="tlcli", standalone_mode=False)
        except CLICK_ERROR as error:
            if not str(error):
                return UsageError.exit_code  # no command given: Typer has printed the help
            raise UsageError(_usage(error, arguments)) from error
        except Stopped as error:
            known = [RESUME_HINTS[name] for name in arguments if name in RESUME_HINTS]
            hint = " ".join(getattr(error, "__notes__", known[:1]))
            raise Interrupted(f"stopped. {hint}", exit_code=error.exit_code) from error
        except (BrokenPipeError, SystemExit) as error:
            if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
                raise  # raised by a library or by shell completion
            # The reader of standard output has exited (| head); Typer raises SystemExit for it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        except OSError as error:
            raise from_os_error(error) from error
        except Exception as error:
            if isinstance(error, TlcliError) or not out_of_memory(error):
                raise
            raise MachineError("out of memory. Use a smaller --batch-size or fewer --workers.") from error
    except TlcliError as error:
        notes = [*getattr(error, "__notes__", []), *getattr(error.__cause__, "__notes__", [])]
        if not isinstance(error, Interrupted):
            error.message = " ".join([error.message, *notes])
        _report(error, arguments)
        return error.exit_code
    return code if isinstance(code, int) else 0


def _report(error: TlcliError, arguments: Sequence[str]) -> None:
    """Report why the command stops."""
    if isinstance(error, PeerStopped):
        return
    if "--verbose" in arguments and error.__cause__ is not None:
        traceback.print_exception(error.__cause__)
    if (place := launched()).rank:
        _wait_for_first_rank()
        error.message = f"rank {place.rank} of {place.size}: {error.message}"
    try:
        open_terminal(quiet=False, verbose=False, json_output="--json" in arguments and not place.rank).error(error)
    except OSError:  # standard output is full or broken; only the exit code is left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _wait_for_first_rank() -> None:
    """Wait, so that torchrun ends this rank if all ranks failed for the same reason and rank 0 has reported it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    time.sleep(REPORTING_SECONDS)


def _usage(error: Exception, arguments: Sequence[str]) -> str:
    command = next((f" {name}" for name in arguments if not name.startswith("-")), "")
    known = command.strip() in {
        info.name or info.callback.__name__ for info in app.registered_commands if info.callback
    }
    message = str(error.format_message()) if hasattr(error, "format_message") else str(error)
    if wrong := getattr(error, "option_name", None) if hasattr(error, "possibilities") else None:
        context = getattr(error, "ctx", None)
        parameters = context.command.params if context else []
        options = [option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)]
        meant = suggest(wrong, [option for option in options if option.startswith("--")], arguments)
        message = f"No such option: {wrong}." + (f" Did you mean {meant}?" if meant else "")
    return f"{message} See tlcli{command if known else ''} --help."
