"""A list of paths in an unnamed temporary file: memory use stays constant, and it can be iterated more than once."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tempfile
from collections.abc import Iterator
from typing import IO

from tlcli.errors import MachineError
from tlcli.storage.stored import StoredPath

LENGTHS = struct.Struct("<II")
"""Header of a record: bytes of the path, and bytes of its storage location (0 for an ordinary file)."""


def write_spool(paths: Iterator[str]) -> tuple[IO[bytes], int]:
    """Write paths to an unnamed temporary file.

    Returns:
        The open file, and the number of paths.

    Raises:
        MachineError: The file cannot be written.
    """
    count = 0
    with contextlib.ExitStack() as on_failure:
        with _explained_errors():
            spool = tempfile.TemporaryFile()  # noqa: SIM115
        on_failure.callback(_close, spool)
        for path in paths:
            name = os.fsencode(path)
            place = json.dumps(path.place()).encode() if isinstance(path, StoredPath) else b""
            with _explained_errors():
                spool.write(LENGTHS.pack(len(name), len(place)) + name + place)
            count += 1
        with _explained_errors():
            spool.flush()
        on_failure.pop_all()  # the caller closes it
    return spool, count


def read_spool(spool: IO[bytes]) -> Iterator[str]:
    """Yield the paths from the start of the file."""
    position = 0
    while True:
        spool.seek(position)  # other iterators may have moved it
        if not (lengths := spool.read(LENGTHS.size)):
            return
        path, place = (spool.read(length) for length in LENGTHS.unpack(lengths))
        position = spool.tell()
        yield StoredPath(os.fsdecode(path), *json.loads(place)) if place else os.fsdecode(path)


@contextlib.contextmanager
def _explained_errors() -> Iterator[None]:
    """Name the temporary folder in errors, because the user did not choose it."""
    try:
        yield
    except OSError as error:
        where = f" in {tempfile.tempdir}" if tempfile.tempdir else ""
        raise MachineError(
            f"the list of images cannot be written to a temporary file{where}: {error.strerror}. Free some space "
            "there, or set the environment variable TMPDIR to another folder.",
            path=tempfile.tempdir,
        ) from error


def _close(spool: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # keep the first error
        spool.close()
