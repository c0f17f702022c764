"""INPUT of predict: files, folders and lists, as a stream of paths that can be gone through more than once.

They are listed once, into a file without a name: memory stays flat, and a picture that vanishes later keeps its row.
"""

from __future__ import annotations

import codecs
import os
import struct
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import IO

from tlcli.errors import DataError
from tlcli.files import from_portable_name, portable_name
from tlcli.images.walk import walk_pictures
from tlcli.settings.machines import Shard

LENGTH = struct.Struct("<I")


class Inputs:
    """Paths of the pictures to predict, in order. The first iteration lists them.

    Args:
        inputs: Files, folders, `@list.txt` (a path a line) or `-` (the same on standard input).
        stdin: Where `-` reads from.
        shard: Only these of them.

    Raises:
        DataError: an input does not exist.
    """

    def __init__(self, inputs: tuple[str, ...], stdin: IO[bytes], shard: Shard | None = None) -> None:
        self.skipped: Counter[str] = Counter()
        self.unlisted: list[str] = []
        """Folders that could not be listed, and why."""
        self._inputs = inputs
        self._stdin = stdin
        self._shard = shard
        self._listed: IO[bytes] | None = None
        self.total = 0
        """Pictures of all shards, once they are listed."""
        for name in inputs:
            if name in {"", "@"}:
                raise DataError(f"an INPUT is {name!r}, which names nothing. Give pictures or folders.", path=name)
            if name == "-":
                continue
            if not os.path.exists(name.removeprefix("@") if name.startswith("@") else name):  # noqa: PTH110
                raise DataError(f"{name.removeprefix('@')} does not exist. Give pictures or folders.", path=name)
            if name.startswith("@") and os.path.isdir(name[1:]):  # noqa: PTH112
                raise DataError(f"{name[1:]} is a folder; after @ comes a list, a path a line.", path=name)

    def __iter__(self) -> Iterator[str]:
        if self._listed is None:
            self._listed, self.total = _spool(self._paths())
            if self._shard is not None:
                chosen = self._shard.range(self.total)
                with self._listed as everything:
                    self._listed, _ = _spool(islice(_spooled(everything), chosen.start, chosen.stop))
            weakref.finalize(self, self._listed.close)
        return _spooled(self._listed)

    def _paths(self) -> Iterator[str]:
        typed: list[str] | None = None
        for name in self._inputs:
            if name == "-":
                if typed is None:  # standard input can be read once only
                    typed = list(_lines(self._stdin)) if self._inputs.count("-") > 1 else None
                yield from _lines(self._stdin) if typed is None else typed
            elif name.startswith("@"):
                with open(name[1:], "rb") as file:  # noqa: PTH123 - a name as typed
                    yield from _lines(file)
            elif os.path.isdir(name):  # noqa: PTH112
                yield from walk_pictures(name, self.skipped, self._unreadable)
            else:
                yield name

    def _unreadable(self, problem: OSError) -> None:
        self.unlisted.append(f"{portable_name(problem.filename)} cannot be listed: {problem.strerror}")


def _spool(paths: Iterator[str]) -> tuple[IO[bytes], int]:
    """Paths in a file without a name, each after its length; and how many."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as its `Inputs`
    count = 0
    for path in map(os.fsencode, paths):
        spool.write(LENGTH.pack(len(path)) + path)
        count += 1
    return spool, count


def _spooled(spool: IO[bytes]) -> Iterator[str]:
    position = 0
    while True:
        spool.seek(position)  # others may be reading it too
        if not (length := spool.read(LENGTH.size)):
            return
        path = spool.read(LENGTH.unpack(length)[0])
        position = spool.tell()
        yield os.fsdecode(path)


def _lines(file: IO[bytes]) -> Iterator[str]:
    for number, raw in enumerate(file):
        line = raw.removeprefix(codecs.BOM_UTF8) if number == 0 else raw
        if path := line.rstrip(b"\r\n"):
            yield from_portable_name(os.fsdecode(path))
