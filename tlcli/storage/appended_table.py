"""A CSV table that rows are appended to one by one, each synced to disk before the caller goes on. Torch-free."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from tlcli.errors import DataError
from tlcli.storage.publish import atomic_write, os_errors_name, sync_directory

_Stamp = tuple[int, int, int]

Row = tuple[str, ...]
"""The values of a row, in the order of the columns."""


class AppendedTable:
    """A CSV file with a fixed header. A row that a killed process wrote in part is dropped by the next append.

    Only one process may have it open; hold `locks.lock_output`.

    Args:
        path: The file. It is created with the first rows.
        columns: The names of the columns.

    Raises:
        DataError: The file is not such a table.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self._file = path.resolve()
        self._columns = tuple(columns)
        self._size = 0
        """Bytes of the complete rows."""
        self._stamp: _Stamp | None = None
        """Of the file as this process left it, by which changes of other programs are noticed; None if unknown."""
        self.rows: list[Row] = self._read() if path.exists() else []
        """The rows found when the table was opened."""

    def append(self, rows: Iterable[Row]) -> None:
        """Append rows, and return once they are on disk.

        Raises:
            OSError: They could not be written; none of them counts.
            DataError: Another program has changed the file.
        """
        content = _encode(rows if self._size else [self._columns, *rows])
        with os_errors_name(self.path):
            self._check_unchanged()
            self._write(content)
            if not self._size:
                sync_directory(self._file.parent)
        self._size += len(content)

    def _write(self, content: bytes) -> None:
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._stamp = None
        try:
            os.ftruncate(descriptor, self._size)  # drops what a killed process left incomplete
            os.lseek(descriptor, 0, os.SEEK_END)
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
            except BaseException:  # or complete rows of a refused request would count after a restart
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, self._size)
                raise
            finally:
                with contextlib.suppress(OSError):
                    self._stamp = _stamp(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def replace(self, rows: Iterable[Row]) -> None:
        """Replace all rows at once, and return when they are on disk.

        Raises:
            OSError: They could not be written; the old rows remain.
            DataError: Another program has changed the file.
        """
        content = _encode([self._columns, *rows])
        with os_errors_name(self.path):
            self._check_unchanged()
            mode = stat.S_IMODE(self._file.stat().st_mode) if self._file.exists() else None
            with atomic_write(self._file) as file:
                file.write(content)
            if mode is not None:
                self._file.chmod(mode)
            self._stamp = _stamp(self._file.stat())
        self._size = len(content)

    def _check_unchanged(self) -> None:
        if self._stamp is None:
            return
        try:
            changed = _stamp(self._file.stat()) != self._stamp
        except FileNotFoundError:
            changed = True
        if changed:
            raise DataError(
                f"{self.path} was changed by another program. Nothing was recorded. Stop tlcli label, check the file, "
                "and start it again.",
                path=self.path,
            )

    def _read(self) -> list[Row]:
        content = self._file.read_bytes()
        self._stamp = _stamp(self._file.stat())
        self._size = _complete(content)
        try:
            text = content[: self._size].decode("utf8")
            header, *rows = [tuple(row) for row in csv.reader(io.StringIO(text, newline=""), strict=True)] or [()]
        except (UnicodeDecodeError, csv.Error) as error:
            raise self._refused(f"it is damaged ({error})") from error
        if not header and not content:
            return []
        if header != self._columns:
            raise self._refused(f"its columns are {', '.join(header) or 'missing'}")
        if wrong := next((number for number, row in enumerate(rows, 1) if len(row) != len(header)), None):
            raise self._refused(f"row {wrong:,} has {len(rows[wrong - 1])} values instead of {len(header)}")
        return rows

    def _refused(self, found: str) -> DataError:
        return DataError(
            f"{self.path} exists and cannot be continued: {found}; expected {', '.join(self._columns)}. Choose another "
            "--out, or remove the file.",
            path=self.path,
        )


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _encode(rows: Iterable[Row]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:  # the csv module does not quote a bare carriage return
        (quoting if any("\r" in value for value in row) else writer).writerow(row)
    return text.getvalue().encode("utf8")


def _complete(content: bytes) -> int:
    """Return the number of bytes up to the end of the last complete row: a newline outside of quotes."""
    end = position = quotes = 0
    while (newline := content.find(b"\n", position)) >= 0:
        quotes += content.count(b'"', position, newline)
        position = newline + 1
        if quotes % 2 == 0:
            end = position
    return end
