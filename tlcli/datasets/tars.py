"""Images in tar files (shards), which are read in place without unpacking."""

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

from tlcli.datasets.image_files import has_image_suffix, other_suffix, skipped_path
from tlcli.datasets.path_filter import EXCLUDED, PathFilter
from tlcli.errors import DataError, MachineError
from tlcli.storage.connection import CHUNK, CONNECTIONS
from tlcli.storage.remote import RemoteFile, check_ranges
from tlcli.storage.stored import UNKNOWN, StoredPath
from tlcli.storage.urls import Url, is_url

TAR_SUFFIX = ".tar"
COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".tar.zst")
COMPRESSED_SIGNATURES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""First bytes of compressed files: gzip, bzip2, xz, Zstandard."""
BRACES = re.compile(r"\{(?:(\d{1,18})\.\.(\d{1,18})|([^{}]*,[^{}]*))\}")
"""Matches `{000..099}` and `{a,b}`."""
MAX_SHARDS = 100_000
"""A name that expands to more shards is treated as a typo."""
MAX_HEADER_BYTES = 2**20
"""Maximum size of a header and of a label file, because a damaged header may claim any size."""
BLOCK = 512
"""Bytes per block of a tar; a block of zeros ends it."""
MAX_CACHED_FILES = 1_000_000
"""Approximate number of files whose listings are cached, at some hundred bytes each."""


class TarEntry(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Tar:
    """Listing of one tar."""

    path: str
    version: int
    """Modification time, in nanoseconds since 1970."""
    entries: dict[str, TarEntry]
    """Regular files by name, in the order of the tar; the first one of each name."""
    labels: dict[str, bytes]
    """Contents of the `.cls` and `.json` files, by name."""
    skipped: Counter[str]

    def stored(self, entry: TarEntry) -> StoredPath:
        """Return the path of a file in the tar, `shard.tar/name`."""
        return StoredPath(f"{self.path}/{entry.name}", self.path, entry.offset, entry.size, self.version)


def is_tar(name: str) -> bool:
    """Return whether a name is that of a tar, or of several, such as `shards-{000..099}.tar`."""
    return name.lower().endswith((TAR_SUFFIX, *COMPRESSED_SUFFIXES))


def expand_shards(pattern: str) -> list[str]:
    """Return the names that a pattern such as `shards-{000..099}.tar` or `{train,val}.tar` expands to, in order.

    If a file has exactly the name `pattern`, it is not expanded.

    Raises:
        DataError: There are too many names.
    """
    names = list(islice(_expand(pattern), MAX_SHARDS + 1))
    if len(names) > MAX_SHARDS:
        raise DataError(
            f"{pattern} expands to more than {MAX_SHARDS:,} shards, which is probably a typo. Correct the range.",
            path=pattern,
        )
    return names


def _expand(pattern: str) -> Iterator[str]:
    match = BRACES.search(pattern)
    if match is None or (not is_url(pattern) and os.path.exists(pattern)):  # noqa: PTH110
        yield pattern
        return
    first, last, alternatives = match.groups()
    inner: Iterable[str]
    if alternatives is not None:
        inner = alternatives.split(",")
    else:
        padded = any(len(end) > 1 and end[0] == "0" for end in (first, last))
        width = max(len(first), len(last)) if padded else 0
        inner = (f"{number:0{width}}" for number in range(int(first), int(last) + 1))
    for text in inner:
        yield from _expand(pattern[: match.start()] + text + pattern[match.end() :])


def open_tars(pattern: str) -> Iterator[Tar]:
    """Return the listings of the shards that a pattern expands to.

    Raises:
        DataError: A shard does not exist, is compressed, or is truncated or damaged.
        MachineError: A shard may not be read, or its URL cannot be reached.
    """
    names = expand_shards(pattern)
    if pattern.lower().endswith(COMPRESSED_SUFFIXES):
        raise _compressed_error(pattern)
    if is_url(pattern):
        return _open_remote([Url(name) for name in names])
    missing = [name for name in names if not os.path.isfile(name)]  # noqa: PTH113
    if missing or not names:
        which = f" ({len(missing):,} of {len(names):,} shards)" if len(names) > 1 else ""
        raise DataError(
            f"{(missing or [pattern])[0]} does not exist{which}. Check the name; expected images, folders, or tars.",
            path=pattern,
        )
    return map(open_tar, names)


def _open_remote(urls: list[Url]) -> Iterator[Tar]:
    """Open several at once, because most of the time is spent waiting for the server."""
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        yield from threads.map(open_tar, map(str, urls))


def open_tar(path: str) -> Tar:
    """List a tar at a path or URL by reading its headers.

    Raises:
        DataError: The tar does not exist, or is truncated or damaged.
        MachineError: The tar may not be read, or its URL cannot be reached.
    """
    try:
        return _read_tar(path, UNKNOWN if is_url(path) else os.stat(path).st_mtime_ns)  # noqa: PTH116
    except PermissionError as error:
        raise MachineError(f"{path} cannot be read: {error.strerror}. Grant read access to it.", path=path) from error
    except (tarfile.TarError, ValueError, RecursionError, OverflowError) as error:
        if _is_compressed(path):
            raise _compressed_error(path) from error
        raise DataError(f"{path} is not a complete tar: {error}. Download or create it again.", path=path) from error


def _compressed_error(path: str) -> DataError:
    return DataError(
        f"{path} is compressed, so its images cannot be read individually. Decompress it to a .tar (compression "
        "hardly shrinks images).",
        path=path,
    )


def _is_compressed(path: str) -> bool:
    """Return whether a file on this machine is compressed, by its content."""
    if is_url(path):
        return False
    with open(path, "rb") as file:  # noqa: PTH123 - a path may be any bytes
        return file.read(6).startswith(COMPRESSED_SIGNATURES)


_listings: dict[tuple[str, int], Tar] = {}
"""Cached listings by path and version, least recently used first, so that no tar is listed again and again."""


def _read_tar(path: str, version: int) -> Tar:
    if (known := _listings.pop((path, version), None)) is None:
        if is_url(path):
            remote = RemoteFile(Url(path))
            check_ranges(Url(path), remote.stored.size)  # once, instead of for each image
            known = _list_tar(path, remote.stored.version, io.BufferedReader(remote, CHUNK))
        else:
            with open(path, "rb") as file:  # noqa: PTH123 - a path may be any bytes
                known = _list_tar(path, version, file)
        while _listings and sum(len(tar.entries) for tar in list(_listings.values())) > MAX_CACHED_FILES:
            _listings.pop(next(iter(list(_listings))), None)
    _listings[path, version] = known  # move it to the end, as most recently used
    return known


def _list_tar(path: str, version: int, file: IO[bytes]) -> Tar:
    skipped: Counter[str] = Counter()
    entries: dict[str, TarEntry] = {}
    labels: dict[str, bytes] = {}
    for info in _headers(file):
        parts = info.name.split("/")
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            skipped["no ordinary files"] += 1
        elif ".." in parts or info.name.startswith("/"):
            skipped["names that lead out of their tar"] += 1
        elif reason := skipped_path(parts):
            skipped[reason] += 1
        elif info.name in entries or info.name in labels:
            skipped["names that come twice"] += 1
        elif split_key(info.name)[1] in {"cls", "json"}:
            file.seek(info.offset_data)
            labels[info.name] = file.read(info.size) if info.size <= MAX_HEADER_BYTES else b""
        else:
            entries[info.name] = TarEntry(info.name, info.offset_data, info.size)
    return Tar(path=path, version=version, entries=entries, labels=labels, skipped=skipped)


class _HeaderReader:
    """A file that rejects headers above the size limit before reading them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes at byte {self.tell():,}")
        return self._file.read(size)


def _headers(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of a tar. Raises TarError if it is truncated or damaged."""
    reader: Any = _HeaderReader(file)
    tar: Any  # its type stubs lack the list of members
    with tarfile.open(fileobj=reader, mode="r:", encoding="utf8", errors="surrogateescape") as tar:
        reached = 0
        while (info := tar.next()) is not None:
            if tar.offset <= reached:
                raise tarfile.ReadError(f"a header at byte {reached:,} points backward")
            reached = tar.offset
            yield info
            tar.members.clear()  # do not keep a million members twice
        file.seek(tar.offset)
        if file.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError(f"truncated or damaged at byte {tar.offset:,}")


def split_key(name: str) -> tuple[str, str]:
    """Split a file name into its key and the lowercase suffix after the first dot, without the dot."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return folder + slash + stem, suffix.lower()


def images_in(tar: Tar, skipped: Counter[str], paths: PathFilter) -> Iterator[StoredPath]:
    """Yield the paths of a tar's images in their order; `skipped` counts other files by reason."""
    skipped += tar.skipped
    for entry in tar.entries.values():
        if paths and not paths.keeps(entry.name):
            skipped[EXCLUDED] += 1
        elif has_image_suffix(entry.name):
            yield tar.stored(entry)
        else:
            skipped[other_suffix(entry.name)] += 1


def resolve_tar_member(path: str) -> str:
    """Return the image that `shard.tar/name` names, if the tar has this file; otherwise the path itself."""
    before, found, name = path.partition(TAR_SUFFIX + "/")
    archive = before + TAR_SUFFIX
    if not found or isinstance(path, StoredPath) or not (is_url(path) or os.path.isfile(archive)):  # noqa: PTH113
        return path
    try:
        tar = open_tar(archive)
    except DataError:
        if is_url(path):  # a folder may have such a name
            return path
        raise
    return tar.stored(tar.entries[name]) if name in tar.entries else path
