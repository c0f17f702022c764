"""The journal of predict, so that an interrupted prediction loses nothing. Torch-free.

Rows are appended to a journal beside the output as soon as they are made: one JSON array per line, after its checksum.
Once all rows are there, the journal is converted to the CSV, JSONL, or Parquet file, which appears whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tlcli.errors import ArtifactError, MachineError
from tlcli.inference.row_files import PredictionRow, write_rows
from tlcli.progress import Reporter, Silent
from tlcli.storage.locks import LockHeldError, locked
from tlcli.storage.publish import atomic_write, hidden_prefix, os_errors_name, remove_leftovers

FORMAT = 1
"""Version of the journal's format."""
CHECKSUM = 16
"""Hexadecimal digits of a row's checksum."""


def journal_path(out: Path) -> Path:
    """Return the path of the journal of an output."""
    return out.with_name(f".{out.name}.partial")


class Journal:
    """Rows on their way to a file. A context manager.

    A row's checksum covers its number and the journal's header (its first line). A damaged line, or a line that another
    process inserted on a file system without locks, therefore never passes for this row.

    Args:
        out: The file that the rows are written to at the end.
        signature: Everything that determines the rows; a journal with another signature is not resumed.
        resume: Keep the rows of an existing journal; `done` counts them.
        report: Receives warnings about damaged rows and about file systems without locks.

    Raises:
        ArtifactError: `resume` is set, and the existing journal has another signature or is damaged.
        MachineError: Another process is writing the same output.
    """

    def __init__(self, out: Path, signature: dict[str, Any], *, resume: bool, report: Reporter | None = None) -> None:
        self._path = journal_path(out)
        self._out = out
        self._report = report or Silent()
        self.done = 0
        """Rows that were in the journal when it was opened."""
        header = json.dumps({"format": FORMAT} | signature, sort_keys=True).encode()
        self._header = _line(header, b"")
        lock = out.with_name(f"{hidden_prefix(out)}lock")
        with os_errors_name(out), contextlib.ExitStack() as stack:
            try:
                held = stack.enter_context(locked(lock, self._report, remove=True))
            except LockHeldError as error:
                message = f"{error} is writing {out}. Wait for it, or choose another --out."
                raise MachineError(message, path=out) from error
            if held:
                remove_leftovers(out)
            # In append mode, writes go to the end wherever the last read stopped.
            self._file = stack.enter_context(self._path.open("a+b"))
            if not resume:
                self._file.truncate(0)
            self._recover()
            self._count = self.done
            self._open = stack.pop_all()

    def _recover(self) -> None:
        """Count the valid rows and cut off the rest: a row that was half-written at a kill, or damage."""
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n"):  # new, or killed before the header was complete
            self._file.truncate(0)
            self._file.write(self._header)
            self._file.flush()
            return
        if (content := _content(first, b"")) is None:
            raise ArtifactError(
                f"{self._path} is damaged (the checksum of its first line differs). Start again with --overwrite.",
                path=self._path,
            )
        if first != self._header:
            raise ArtifactError(
                f"{self._path} was started with other inputs or options{_differences(content, self._header)}. Repeat "
                "the original command, or start again with --overwrite.",
                path=self._path,
            )
        end = len(first)
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            if _content(line, self._position(self.done)) is None:
                self._report.warn(
                    f"{self._path} is damaged (the checksum of row {self.done + 1:,} differs); this row and the ones "
                    "after it are predicted again."
                )
                break
            end += len(line)
            self.done += 1
        self._file.truncate(end)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with os_errors_name(self._out):
            self._open.close()

    def add(self, rows: Sequence[PredictionRow]) -> None:
        """Append rows; once this returns, they survive a crash of the process."""
        positions = map(self._position, range(self._count, self._count + len(rows)))
        with os_errors_name(self._out):
            self._file.write(
                b"".join(_line(json.dumps(row).encode(), at) for row, at in zip(rows, positions, strict=True))
            )
            self._file.flush()
        self._count += len(rows)

    def rows(self) -> Iterator[PredictionRow]:
        """Yield all rows so far.

        Raises:
            ArtifactError: A row is not what was written.
        """
        self._file.seek(len(self._header))
        for number in range(self._count):
            text = _content(self._file.readline(), self._position(number))
            if text is None:
                raise ArtifactError(
                    f"{self._path} is damaged (the checksum of row {number + 1:,} differs), or another process is "
                    "writing to it. Repeat the command with --resume, which keeps the valid rows.",
                    path=self._path,
                )
            yield json.loads(text)

    def _position(self, number: int) -> bytes:
        """Return what the checksum of row `number` covers besides its text."""
        return self._header + str(number).encode()

    def finish(self, names: Sequence[str]) -> None:
        """Write the output with these column names, whole, and delete the journal."""
        self._file.flush()
        with atomic_write(self._out) as file:
            write_rows(file, self._out.suffix.lower(), names, self.rows())
        self._path.unlink()


def _line(text: bytes, position: bytes) -> bytes:
    """Return a line of the journal: the checksum of position and text, and the text."""
    return hashlib.sha256(position + text).hexdigest()[:CHECKSUM].encode() + b" " + text + b"\n"


def _content(line: bytes, position: bytes) -> bytes | None:
    """Return the text of a line that `_line` wrote for `position`, or None for any other line."""
    text = line[CHECKSUM + 1 : -1]
    return text if line == _line(text, position) else None


def _differences(first: bytes, header: bytes) -> str:
    """Name the entries in which a journal's first line differs from the expected header."""
    try:
        before, now = json.loads(first), json.loads(header[CHECKSUM + 1 :])
        names = sorted(name for name in now if before.get(name) != now[name])
    except (ValueError, AttributeError):
        return ""
    return f" ({', '.join(names)})"
