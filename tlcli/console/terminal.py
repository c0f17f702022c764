"""The terminal: progress, notes, warnings and errors on stderr, results on stdout."""

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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from tlcli.errors import TlcliError
from tlcli.progress import Advance

PLAIN_SECONDS = 10.0
"""How often long work says how far it is, where nobody watches a progress bar."""


C1 = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""Control characters that JSON leaves as they are and some terminals obey, as JSON escapes."""


def printable(text: str) -> str:
    """`text` with control characters and lone surrogates escaped: file names may hold anything."""
    return "".join(
        character if character.isprintable() or character == " " else ascii(character)[1:-1] for character in text
    )


class Harmless(io.TextIOBase):
    """Passes text on to a terminal, with what a terminal would obey escaped: rows hold names that strangers gave."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write text; its newlines stay."""
        self._file.write("\n".join(map(printable, text.split("\n"))))
        return len(text)

    def flush(self) -> None:
        """Have it shown."""
        self._file.flush()


class Unfailing(io.TextIOBase):
    """Standard error, as long as there is room where it goes: a message that can't be told is no reason to fail."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write text, or give up writing for good."""
        try:
            self._file.write(text)
            self._file.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def isatty(self) -> bool:
        """Whether somebody watches."""
        return self._file.isatty()

    def fileno(self) -> int:
        """Its descriptor, from which the terminal's width is asked."""
        return self._file.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """By which rich chooses its characters."""
        return self._file.encoding


class Terminal:
    """A `Reporter` for people. Lines are printed as they are: nothing in them is markup.

    Args:
        quiet: Only warnings and errors.
        json_output: Results are JSON on stdout, and summaries are left out.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False, json_output: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self.json_output = json_output
        self.started = time.monotonic()
        stderr = cast(IO[str], Unfailing(sys.stderr))
        self.console = Console(file=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)

    @property
    def summarizes(self) -> bool:
        """Whether summaries for people are wanted."""
        return not self.quiet and not self.json_output

    def elapsed(self) -> float:
        """Seconds since the command began, imports included."""
        return time.monotonic() - self.started

    def note(self, text: str) -> None:
        """One line of information."""
        if not self.quiet:
            self.console.print(printable(text))

    def warn(self, text: str) -> None:
        """One line that should not be missed."""
        self.console.print(Text.assemble(("warning: ", "yellow"), printable(text)))

    def detail(self, text: str) -> None:
        """One line for `--verbose`."""
        if self.verbose:
            self.console.print(Text(printable(text), style="dim"))

    def error(self, error: TlcliError) -> None:
        """Why the command stops: a line on stderr, and an object on stdout with `--json`."""
        self.console.print(Text.assemble((f"{error.kind}: ", "bold red"), printable(error.message)))
        if self.json_output:
            self.result({"error": {"kind": error.kind, "message": error.message, "path": error.path}})

    def rows(self) -> IO[str]:
        """Where rows meant for standard output go: as they are into a file or pipe, harmless onto a terminal."""
        return cast(IO[str], Harmless(sys.stdout)) if sys.stdout.isatty() else sys.stdout

    def result(self, content: dict[str, Any]) -> None:
        """The one JSON object of `--json`, on stdout."""
        text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False).translate(C1)
        sys.stdout.buffer.write(text.encode("utf8", "backslashreplace") + b"\n")
        sys.stdout.buffer.flush()

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str = "images") -> Iterator[Advance]:
        """Long work: a bar with rate and time left on a terminal, a line now and then elsewhere."""
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
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=self.console,
            # Rich would send rows meant for standard output to the bar's console.
            redirect_stdout=False,
            redirect_stderr=False,
        )

    @contextlib.contextmanager
    def _plain(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        started = said = time.monotonic()
        done = 0

        def advance(more: int) -> None:
            nonlocal done, said
            done += more
            now = time.monotonic()
            if now - said > PLAIN_SECONDS and done < total:
                said = now
                left = (total - done) * (now - started) / done if done else 0
                self.note(f"{name:<9} {done:,}/{total:,} {unit}, {_rate(done, now - started)}, {left:.0f} s left")

        yield advance
        seconds = time.monotonic() - started
        self.note(f"{name:<9} {done:,}/{total:,} {unit}, {_rate(done, seconds)}, {seconds:.1f} s")


class _Rate(ProgressColumn):
    """How many a second, over the whole of the task."""

    def render(self, task: Task) -> Text:
        return Text(_rate(task.completed, task.elapsed or 0))


def _rate(done: float, seconds: float) -> str:
    if not done or not seconds:
        return "-/s"
    rate = done / seconds
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
