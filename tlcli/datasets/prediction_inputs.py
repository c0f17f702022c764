"""INPUT of predict: files, folders and lists, as a stream of paths that can be gone through more than once.

They are listed once, into a file without a name: memory stays flat, and an image that vanishes later keeps its row.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import struct
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import IO

from tlcli.datasets.folder_tree import ListedTree
from tlcli.datasets.image_files import walk_images
from tlcli.datasets.tars import images_in, is_tar, open_tars, resolve_tar_member
from tlcli.errors import DataError, MachineError, UsageError
from tlcli.settings.machines import Shard
from tlcli.storage.files import from_portable_name, portable_name
from tlcli.storage.remote import content_of, listing
from tlcli.storage.stored import UNKNOWN, StoredPath
from tlcli.storage.urls import Url, is_url

LENGTHS = struct.Struct("<II")


class PredictionInputs:
    """Paths of the images to predict, in order. The first iteration lists them.

    Args:
        inputs: Files, folders, WebDataset's shards, `@list.txt` (a path a line) or `-` (the same on standard input);
            on this machine or at URLs.
        stdin: Where `-` reads from.
        shard: Only these of them.

    Raises:
        DataError: an input does not exist.
    """

    def __init__(self, inputs: tuple[str, ...], stdin: IO[bytes], shard: Shard | None = None) -> None:
        self.skipped: Counter[str] = Counter()
        self.unlisted: list[str] = []
        """Folders that could not be listed, and why."""
        self._inputs = inputs = tuple(map(_typed, inputs))
        self._stdin = stdin
        self._shard = shard
        self._listed: IO[bytes] | None = None
        self.total = 0
        """Images of all shards, once they are listed."""
        for name in inputs:
            if name in {"", "@"}:
                raise DataError(f"an INPUT is {name!r}, which names nothing. Give images or folders.", path=name)
            if name == "-":
                continue
            if not _is_there(name):
                raise DataError(f"{name.removeprefix('@')} does not exist. Give images or folders.", path=name)
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
                with _opened_list(name[1:]) as file:
                    yield from _lines(file)
            elif os.path.isdir(name):  # noqa: PTH112
                yield from walk_images(name, self.skipped, self._unreadable)
            elif is_tar(name):
                for shard in open_tars(name):
                    yield from images_in(shard, self.skipped)
            elif is_url(name):
                yield from self._at_url(Url(name))
            else:
                yield resolve_tar_member(name)

    def _at_url(self, url: Url) -> Iterator[str]:
        path = resolve_tar_member(str(url))
        if isinstance(path, StoredPath):
            yield path
            return
        found = listing(url)
        if "" in found:
            yield found[""]
        else:
            yield from ListedTree(str(url), found).images(str(url).rstrip("/"), self.skipped)

    def _unreadable(self, problem: OSError) -> None:
        self.unlisted.append(f"{portable_name(problem.filename)} cannot be listed: {problem.strerror}")


def _spool(paths: Iterator[str]) -> tuple[IO[bytes], int]:
    """Paths in a file without a name, each after its length and that of its place, if it has one; and how many."""
    count = 0
    with contextlib.ExitStack() as failing:
        with _told():
            spool = tempfile.TemporaryFile()  # noqa: SIM115
        failing.callback(_drop, spool)
        for path in paths:
            name, place = os.fsencode(path), json.dumps(path.place()).encode() if isinstance(path, StoredPath) else b""
            with _told():
                spool.write(LENGTHS.pack(len(name), len(place)) + name + place)
            count += 1
        with _told():
            spool.flush()
        failing.pop_all()  # it is open as long as its `PredictionInputs`
    return spool, count


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Have an OSError of this file say where it is, since nobody has named that place."""
    try:
        yield
    except OSError as error:
        where = f" in {tempfile.tempdir}" if tempfile.tempdir else ""
        raise MachineError(
            f"the list of images can't be kept in a temporary file{where}: {error.strerror}. Make room there, or let "
            "the environment variable TMPDIR name another folder.",
            path=tempfile.tempdir,
        ) from error


def _drop(spool: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # what went wrong first is what is told
        spool.close()


def _spooled(spool: IO[bytes]) -> Iterator[str]:
    position = 0
    while True:
        spool.seek(position)  # others may be reading it too
        if not (lengths := spool.read(LENGTHS.size)):
            return
        path, place = (spool.read(length) for length in LENGTHS.unpack(lengths))
        position = spool.tell()
        yield StoredPath(os.fsdecode(path), *json.loads(place)) if place else os.fsdecode(path)


def _typed(name: str) -> str:
    """An INPUT with the path that a `file://` URI stands for."""
    at = "@" if name.startswith("@") else ""
    return at + from_portable_name(name.removeprefix(at))


def _is_there(name: str) -> bool:
    if is_url(name.removeprefix("@")) or (is_tar(name) and not name.startswith("@")):
        return True  # whoever opens it says what isn't
    path = resolve_tar_member(name.removeprefix("@"))
    return isinstance(path, StoredPath) or os.path.exists(path)  # noqa: PTH110


def _lines(file: IO[bytes]) -> Iterator[str]:
    for number, raw in enumerate(file):
        line = raw.removeprefix(codecs.BOM_UTF8) if number == 0 else raw
        if path := line.rstrip(b"\r\n"):
            name = from_portable_name(os.fsdecode(path))
            yield _at_url(name, number) if is_url(name) else resolve_tar_member(name)


def _at_url(name: str, number: int) -> str:
    """A URL in a list: its image, which is looked for when it is read."""
    try:
        path = resolve_tar_member(str(Url(name)))
    except UsageError as error:
        raise DataError(f"line {number + 1:,} of the list: {error.message}") from error
    return path if isinstance(path, StoredPath) else StoredPath(path, path, size=UNKNOWN, version=UNKNOWN)


def _opened_list(name: str) -> IO[bytes]:
    if is_url(name):
        return io.BytesIO(content_of(Url(name)))
    return open(name, "rb")  # noqa: PTH123 - a name as typed
