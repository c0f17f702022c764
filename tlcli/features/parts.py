"""Part files: Arrow IPC files that appear completely or not at all, with a checksum in their name.

The name holds the SHA-256 of its bytes: `part-000007-<32 hexadecimal digits>.arrow`.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import re
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa

from tlcli.storage.publish import os_errors_name, publish_file

PREFIX = ".part-"
"""Start of the names of temporary files."""

_LIBC = ctypes.CDLL(None)
_NAME = re.compile(r"part-(\d+)-([0-9a-f]{32})\.arrow")


class MappedPart(NamedTuple):
    """A part that is mapped from disk."""

    table: pa.Table
    content: pa.Buffer
    """The mapping of the whole file."""

    def release(self) -> None:
        """Drop the pages that were read from the memory of this process; they remain in the cache of the system."""
        _LIBC.madvise(ctypes.c_void_p(self.content.address), ctypes.c_size_t(self.content.size), mmap.MADV_DONTNEED)


def write_part(directory: Path, table: pa.Table) -> Path:
    """Write `table` as the next part in `directory`, synced to disk, and return its path."""
    number = 1 + max((int(match[1]) for match in map(_NAME.fullmatch, _names(directory)) if match), default=0)

    def final_name() -> str:
        return f"part-{number:06d}-{hashing.digest()}.arrow"

    with os_errors_name(directory), publish_file(directory, PREFIX, final_name) as file:
        hashing = _HashingFile(file)
        with pa.ipc.new_file(pa.PythonFile(hashing, "w"), table.schema) as writer:
            writer.write_table(table)
    return directory / final_name()


def read_parts(
    directory: Path, damaged: Callable[[Path], None], known: Container[str] = ()
) -> Iterator[tuple[Path, MappedPart]]:
    """Yield the parts in `directory`, oldest first, mapped from disk after verifying their checksums.

    Args:
        directory: The store's directory, which need not exist.
        damaged: Called with each part that fails its checksum or is not an Arrow file. It is left out.
        known: Names of parts to leave out.
    """
    for name in sorted(_names(directory)):
        match = _NAME.fullmatch(name)
        if match is None or name in known:
            continue
        path = directory / name
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()[:32]
            part = map_part(path) if found == match[2] else None
        except FileNotFoundError:
            continue  # merged into another part, or pruned, after the directory was listed
        except pa.ArrowException:  # with a matching checksum in its name
            part = None
        if part is None:
            damaged(path)
        else:
            yield path, part


def map_part(path: Path) -> MappedPart:
    """Map a part's rows from disk without verifying its checksum, but check that no row lies outside the file.

    Raises:
        ArrowException: it is not an Arrow file.
    """
    content = pa.memory_map(str(path)).read_buffer()
    table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
    table.validate()
    return MappedPart(table, content)


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()] if directory.is_dir() else []


class _HashingFile:
    """Passes what is written on to a file, and hashes it on the way."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Arrow closes what it wrote to; the file stays open to be synced."""

    def digest(self) -> str:
        return self._hash.hexdigest()[:32]
