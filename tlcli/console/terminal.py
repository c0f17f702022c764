"""Write progress, messages, warnings and errors to stderr, and results to stdout."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import IO, Any, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from tlcli.console.time_left import TimeLeft, TimeLeftColumn
from tlcli.errors import TlcliError
from tlcli.progress import Advance

PLAIN_SECONDS = 10.0
"""Interval of progress lines if stderr is not a terminal."""
C1_ESCAPES = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""JSON escapes of control characters that JSON permits unescaped but some terminals execute."""


def printable(text: str) -> str:
    """Escape control characters and lone surrogates, which file names may contain."""
    return "".join(
        character if character.isprintable() or character == " " else ascii(character)[1:-1] for character in text
    )


class EscapingWriter(io.TextIOBase):
    """Write to a terminal with control characters escaped, because rows contain untrusted file names."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write text, keeping newlines."""
        self._file.write("\n".join(map(printable, text.split("\n"))))
        return len(text)

    def flush(self) -> None:
        """Flush the terminal."""
        self._file.flush()


class BestEffortWriter(io.TextIOBase):
    """Write to stderr until it fails, as on a full disk, then drop all text: a lost message must not stop a command."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write text; on the first error, redirect stderr to the null device."""
        try:
            self._file.write(text)
            self._file.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
        return len(text)

    def flush(self) -> None:
        """Do nothing: every write is flushed."""

    def isatty(self) -> bool:
        """Return whether stderr is a terminal."""
        return self._file.isatty()

    def fileno(self) -> int:
        """Return the file descriptor, which rich uses to get the terminal's width."""
        return self._file.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding, by which rich chooses its characters."""
        return self._file.encoding


class Terminal:
    """A `Reporter` that prints to the terminal. Text is never interpreted as markup.

    Args:
        quiet: Print only warnings and errors.
        verbose: Print details.
        json_output: Print results as JSON to stdout, and no summaries.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False, json_output: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self.json_output = json_output
        self.started = time.monotonic()
        stderr = cast(IO[str], BestEffortWriter(sys.stderr))
        self.console = Console(file=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)

    @property
    def summarizes(self) -> bool:
        """Whether to print summaries."""
        return not self.quiet and not self.json_output

    def elapsed(self) -> float:
        """Return the seconds since the command started, including imports."""
        return time.monotonic() - self.started

    def note(self, text: str) -> None:
        """Print a line of information."""
        if not self.quiet:
            self.console.print(printable(text))

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.console.print(Text.assemble(("warning: ", "yellow"), printable(text)))

    def detail(self, text: str) -> None:
        """Print a line if `--verbose` is given."""
        if self.verbose:
            self.console.print(Text(printable(text), style="dim"))

    def error(self, error: TlcliError) -> None:
        """Print an error to stderr and, with `--json`, as an object to stdout."""
        self.console.print(Text.assemble((f"{error.kind}: ", "bold red"), printable(error.message)))
        if self.json_output:
            self.result({"error": {"kind": error.kind, "message": error.message, "path": error.path}})

    def rows(self) -> IO[str]:
        """Return the stream for rows on standard output, which escapes control characters on a terminal."""
        return cast(IO[str], EscapingWriter(sys.stdout)) if sys.stdout.isatty() else sys.stdout

    def result(self, content: dict[str, Any]) -> None:
        """Print the JSON object of `--json` to stdout."""
        text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False).translate(C1_ESCAPES)
        sys.stdout.buffer.write(text.encode("utf8", "backslashreplace") + b"\n")
        sys.stdout.buffer.flush()

    def line(self, content: dict[str, Any]) -> None:
        """Print a JSON object to stdout as one line."""
        sys.stdout.buffer.write(json.dumps(content).encode() + b"\n")
        sys.stdout.buffer.flush()

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str = "images") -> Iterator[Advance]:
        """Show progress with the rate and the time left: as a bar on a terminal, else as a line every 10 seconds."""
        if self.quiet:
            yield lambda _: None
        elif self.console.is_terminal:
            with self._bar() as progress:
                task = progress.add_task(name, total=total)
                yield lambda more: progress.advance(task, more)
        else:
            with self._plain(name, total, unit) as advance:
                yield advance

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description:<9}"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            _Rate(),
            TimeLeftColumn(),
            console=self.console,
            # Otherwise rich would print rows for standard output to stderr.
            redirect_stdout=False,
            redirect_stderr=False,
        )

    @contextlib.contextmanager
    def _plain(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        started = printed = time.monotonic()
        done, time_left = 0, TimeLeft()

        def advance(more: int) -> None:
            nonlocal done, printed
            done += more
            now = time.monotonic()
            left = time_left.seconds(now - started, done, total)
            if now - printed > PLAIN_SECONDS and done < total:
                printed = now
                rest = "" if left is None else f", {left:.0f} s left"
                self.note(f"{name:<9} {done:,}/{total:,} {unit}, {_rate(done, now - started)}{rest}")

        yield advance
        seconds = time.monotonic() - started
        self.note(f"{name:<9} {done:,}/{total:,} {unit}, {_rate(done, seconds)}, {seconds:.1f} s")


class _Rate(ProgressColumn):
    """The average rate of the whole task."""

    def render(self, task: Task) -> Text:
        return Text(_rate(task.completed, task.elapsed or 0))


def _rate(done: float, seconds: float) -> str:
    if not done or not seconds:
        return "-/s"
    rate = done / seconds
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
