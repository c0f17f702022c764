"""Shards: images in tar files, read where they lie; nothing is unpacked."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any, NamedTuple

from tlcli.datasets.image_files import has_image_suffix, is_hidden
from tlcli.errors import DataError, MachineError
from tlcli.storage.connection import CHUNK, CONNECTIONS
from tlcli.storage.remote import RemoteFile
from tlcli.storage.stored import UNKNOWN, StoredPath
from tlcli.storage.urls import Url, is_url

SUFFIX = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".tar.zst")
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How the content of such a file begins: gzip, bzip2, xz, Zstandard."""
BRACES = re.compile(r"\{(?:(\d{1,18})\.\.(\d{1,18})|([^{}]*,[^{}]*))\}")
"""`{000..099}` and `{a,b}`."""
MOST_TARS = 100_000
"""More than these in one name are a slip of the hand."""
MOST_HEADER = 2**20
"""Bytes of the longest header and the longest label; a damaged header may ask for any number."""
BLOCK = 512
"""Bytes of a tar's blocks; one of zeros ends it."""
MOST_KEPT = 1_000_000
"""Files in the tars whose lists are kept, about: some hundred bytes each."""


class Entry(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Tar:
    """What one tar holds."""

    path: str
    version: int
    """Time of its last change, in nanoseconds since 1970."""
    entries: dict[str, Entry]
    """Ordinary files by name, in their order; of those with one name the first."""
    labels: dict[str, bytes]
    """Contents of the `.cls` and `.json` files, by name."""
    skipped: Counter[str]

    def stored(self, entry: Entry) -> StoredPath:
        """The path of a file in it, `tar.tar/name`."""
        return StoredPath(f"{self.path}/{entry.name}", self.path, entry.offset, entry.size, self.version)


def is_tar(name: str) -> bool:
    """Whether this names a tar, or several by `{000..099}`."""
    return name.lower().endswith((SUFFIX, *COMPRESSED))


def expand_shards(pattern: str) -> list[str]:
    """The names that `shards-{000..099}.tar` or `{train,val}.tar` stand for, in order; a file's own name stands for it.

    Raises:
        DataError: they are too many.
    """
    names = list(islice(_expand(pattern), MOST_TARS + 1))
    if len(names) > MOST_TARS:
        raise DataError(f"{pattern} stands for more than {MOST_TARS:,} shards. Is it a slip?", path=pattern)
    return names


def _expand(pattern: str) -> Iterator[str]:
    match = BRACES.search(pattern)
    if match is None or (not is_url(pattern) and os.path.exists(pattern)):  # noqa: PTH110
        yield pattern
        return
    first, last, some = match.groups()
    inner: Iterable[str]
    if some is not None:
        inner = some.split(",")
    else:
        padded = any(len(end) > 1 and end[0] == "0" for end in (first, last))
        width = max(len(first), len(last)) if padded else 0
        inner = (f"{number:0{width}}" for number in range(int(first), int(last) + 1))
    for text in inner:
        yield from _expand(pattern[: match.start()] + text + pattern[match.end() :])


def open_tars(pattern: str) -> Iterator[Tar]:
    """The shards that a name stands for, one after the other.

    Raises:
        DataError: one is not there, is compressed, or is no whole tar.
        MachineError: one may not be read, or not be reached.
    """
    names = expand_shards(pattern)
    if pattern.lower().endswith(COMPRESSED):
        raise _packed(pattern)
    if is_url(pattern):
        return _open_remote([Url(name) for name in names])
    absent = [name for name in names if not os.path.isfile(name)]  # noqa: PTH113
    if absent or not names:
        which = f" ({len(absent):,} of {len(names):,} shards)" if len(names) > 1 else ""
        raise DataError(
            f"{(absent or [pattern])[0]} does not exist{which}. Give images, folders or tars.", path=pattern
        )
    return map(open_tar, names)


def _open_remote(urls: list[Url]) -> Iterator[Tar]:
    """Several at once, since each is waited for again and again."""
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        yield from threads.map(open_tar, map(str, urls))


def open_tar(path: str) -> Tar:
    """List a tar, a path or a URL, by its headers.

    Raises:
        DataError: it is not there, or is no whole tar.
        MachineError: it may not be read, or not be reached.
    """
    try:
        return _read_tar(path, UNKNOWN if is_url(path) else os.stat(path).st_mtime_ns)  # noqa: PTH116
    except PermissionError as error:
        raise MachineError(f"{path} cannot be read: {error.strerror}. Grant access to it.", path=path) from error
    except (tarfile.TarError, ValueError, RecursionError, OverflowError) as error:
        if _is_packed(path):
            raise _packed(path) from error
        raise DataError(f"{path} is no whole tar: {error}. Fetch or make it again.", path=path) from error


def _packed(path: str) -> DataError:
    return DataError(
        f"{path} is compressed, so its images can't be read one by one. Decompress it to a .tar (images hardly "
        "shrink).",
        path=path,
    )


def _is_packed(path: str) -> bool:
    """Whether a file on this machine is compressed, whatever its name."""
    if is_url(path):
        return False
    with open(path, "rb") as file:  # noqa: PTH123 - a path may be any bytes
        return file.read(6).startswith(PACKED)


_listings: dict[tuple[str, int], Tar] = {}
"""Of tars, by path and version, so that names which come from many of them don't have each listed again and again."""


def _read_tar(path: str, version: int) -> Tar:
    if (known := _listings.pop((path, version), None)) is None:
        if is_url(path):
            remote = RemoteFile(Url(path))
            known = _listed(path, remote.stored.version, io.BufferedReader(remote, CHUNK))
        else:
            with open(path, "rb") as file:  # noqa: PTH123 - a path may be any bytes
                known = _listed(path, version, file)
        while _listings and sum(len(tar.entries) for tar in list(_listings.values())) > MOST_KEPT:
            _listings.pop(next(iter(list(_listings))), None)
    _listings[path, version] = known  # the last is the one used last
    return known


def _listed(path: str, version: int, file: IO[bytes]) -> Tar:
    skipped: Counter[str] = Counter()
    entries: dict[str, Entry] = {}
    labels: dict[str, bytes] = {}
    for info in _headers(file):
        parts = info.name.split("/")
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            skipped["no ordinary files"] += 1
        elif ".." in parts or info.name.startswith("/"):
            skipped["names that lead out of their tar"] += 1
        elif any(is_hidden(part) for part in parts if part != "."):
            skipped["hidden files"] += 1
        elif info.name in entries or info.name in labels:
            skipped["names that come twice"] += 1
        elif key_of(info.name)[1] in {"cls", "json"}:
            file.seek(info.offset_data)
            labels[info.name] = file.read(info.size) if info.size <= MOST_HEADER else b""
        else:
            entries[info.name] = Entry(info.name, info.offset_data, info.size)
    return Tar(path=path, version=version, entries=entries, labels=labels, skipped=skipped)


class _Bounded:
    """A file of which no header is read that is longer than any may be."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes at byte {self.tell():,}")
        return self._file.read(size)


def _headers(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """The headers of a tar. Raises TarError unless it is whole."""
    bounded: Any = _Bounded(file)
    tar: Any  # whose list of members its type doesn't tell
    with tarfile.open(fileobj=bounded, mode="r:", encoding="utf8", errors="surrogateescape") as tar:
        reached = 0
        while (info := tar.next()) is not None:
            if tar.offset <= reached:
                raise tarfile.ReadError(f"a header that leads back at byte {reached:,}")
            reached = tar.offset
            yield info
            tar.members.clear()  # a million names need not be kept twice
        file.seek(tar.offset)
        if file.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError(f"truncated or damaged at byte {tar.offset:,}")


def key_of(name: str) -> tuple[str, str]:
    """A file's key, and what comes behind it without the dot, in small letters."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return folder + slash + stem, suffix.lower()


def images_in(tar: Tar, skipped: Counter[str]) -> Iterator[StoredPath]:
    """The paths of a tar's images, in their order; what is passed over is counted."""
    skipped += tar.skipped
    for entry in tar.entries.values():
        if has_image_suffix(entry.name):
            yield tar.stored(entry)
        else:
            skipped["not images by their suffix"] += 1


def resolve_tar_member(path: str) -> str:
    """The image that `tar.tar/name` names, if there is that file in that tar; else the path as it is."""
    before, found, name = path.partition(SUFFIX + "/")
    archive = before + SUFFIX
    if not found or isinstance(path, StoredPath) or not (is_url(path) or os.path.isfile(archive)):  # noqa: PTH113
        return path
    try:
        tar = open_tar(archive)
    except DataError:
        if is_url(path):  # a folder may be called so
            return path
        raise
    return tar.stored(tar.entries[name]) if name in tar.entries else path
