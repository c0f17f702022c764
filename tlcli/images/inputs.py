"""INPUT of predict: files, folders and lists, as a stream of paths that can be gone through more than once."""

from __future__ import annotations

import codecs
import os
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import IO

from tlcli.errors import DataError
from tlcli.files import from_portable_name, portable_name
from tlcli.images.walk import walk_pictures


class Inputs:
    """Paths of the pictures to predict, in order. Iterating walks the folders afresh, so memory stays flat.

    Args:
        inputs: Files, folders, `@list.txt` (a path a line) or `-` (the same on standard input).
        stdin: Where `-` reads from.

    Raises:
        DataError: an input does not exist.
    """

    def __init__(self, inputs: tuple[str, ...], stdin: IO[bytes]) -> None:
        self.skipped: Counter[str] = Counter()
        self.unlisted: list[str] = []
        """Folders that could not be listed the last time, and why."""
        self._inputs = inputs
        self._listed: IO[bytes] | None = None
        for name in inputs:
            if name == "-":
                if self._listed is None:
                    self._listed = _spool(stdin)
                    weakref.finalize(self, self._listed.close)
            elif not os.path.exists(name.removeprefix("@") if name.startswith("@") else name):  # noqa: PTH110
                raise DataError(f"{name.removeprefix('@')} does not exist. Give pictures or folders.", path=name)
            elif name.startswith("@") and os.path.isdir(name[1:]):  # noqa: PTH112
                raise DataError(f"{name[1:]} is a folder; after @ comes a list, a path a line.", path=name)

    def __iter__(self) -> Iterator[str]:
        self.skipped.clear()
        self.unlisted.clear()
        for name in self._inputs:
            if name == "-" and self._listed is not None:
                self._listed.seek(0)
                yield from _lines(self._listed)
            elif name.startswith("@"):
                with open(name[1:], "rb") as file:  # noqa: PTH123 - a name as typed
                    yield from _lines(file)
            elif os.path.isdir(name):  # noqa: PTH112
                yield from walk_pictures(name, self.skipped, self._unreadable)
            else:
                yield name

    def _unreadable(self, problem: OSError) -> None:
        self.unlisted.append(f"{portable_name(problem.filename)} cannot be listed: {problem.strerror}")


def _spool(stdin: IO[bytes]) -> IO[bytes]:
    """Standard input in a file without a name, since it is gone through twice."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as its `Inputs`
    for line in stdin:
        spool.write(line)
    return spool


def _lines(file: IO[bytes]) -> Iterator[str]:
    for number, raw in enumerate(file):
        line = raw.removeprefix(codecs.BOM_UTF8) if number == 0 else raw
        if path := line.rstrip(b"\r\n"):
            yield from_portable_name(os.fsdecode(path))
