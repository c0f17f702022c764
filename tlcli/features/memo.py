"""The memo: digests of files by path and stamp, so that unchanged files are not read again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pyarrow as pa

from tlcli.errors import READ_ONLY_ERRNOS
from tlcli.features.parts import PREFIX, read_parts, write_part
from tlcli.images.worker import DecodedImage
from tlcli.progress import Reporter
from tlcli.storage.locks import locked
from tlcli.storage.publish import remove_temporary_files
from tlcli.storage.stored import STAMP_BYTES, UNKNOWN, Stamp, stamp
from tlcli.storage.urls import absolute

RACY_NANOSECONDS = 2_000_000_000
"""A file modified this shortly before it was read is not remembered: it may change again within the same timestamp."""
RACY_TICK = 100_000_000
"""The same for the time of change of a file system that counts in fractions of a second (by 10 ms or less)."""

MOST_PARTS = 32
"""If there are more part files than this, they are merged into one."""


DigestsByPath = dict[bytes, tuple[bytes, bytes]]
"""Packed stamp and digest of each file, by absolute path."""


class Memo:
    """Remembered digests, in `root/memo`; without a root they are kept in memory only.

    If a part is damaged, its images are read again.
    """

    def __init__(self, root: Path | None, report: Reporter) -> None:
        self._directory = None if root is None else root / "memo"
        self._report = report
        self._known: DigestsByPath = {}
        self.new: DigestsByPath = {}
        """Entries that `save` has yet to write."""
        self._parts = 0
        self._damaged: set[Path] = set()
        if self._directory is not None:
            self._read(self._directory)

    def digest(self, path: str) -> bytes | None:
        """Return the digest of a file whose stamp is unchanged; None if it must be read."""
        known = self._known.get(_key(path))
        if known is None:
            return None
        try:
            return known[1] if known[0] == stamp(path).pack() else None
        except OSError:
            return None

    def remember(self, path: str, image: DecodedImage) -> None:
        """Remember the digest of the file that was read at `path`."""
        if image.digest is None or _may_still_change(image):
            return
        entry = (image.stamp.pack(), image.digest)
        if self._known.get(_key(path)) != entry:
            self.new[_key(path)] = self._known[_key(path)] = entry

    def take(self, remembered: DigestsByPath) -> None:
        """Add the new entries of another machine's memo, with the device numbers that their files have here."""
        for key, (packed, digest) in remembered.items():
            there = Stamp.unpack(packed)
            with contextlib.suppress(OSError):  # not a file of its own, or not on this machine
                there = there._replace(device=os.stat(key).st_dev)  # noqa: PTH116
            self.new[key] = self._known[key] = (there.pack(), digest)

    def save(self) -> None:
        """Write new entries to disk. If that fails, the images will be read again next time."""
        if self._directory is None or not self.new:
            return
        try:
            self._save(self._directory)
        except OSError as error:
            if error.errno not in READ_ONLY_ERRNOS:  # a read-only cache is intentional
                self._report.warn(
                    f"{self._directory} cannot be written ({error.strerror}); the images will be read again next time."
                )
        self.new = {}

    def _save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory / ".lock", self._report, wait="") as held:
            if held:
                remove_temporary_files(directory, PREFIX)
            for path in self._damaged:
                path.unlink(missing_ok=True)
            if self._parts < MOST_PARTS:
                write_part(directory, _table(self.new))
                return
            old = list(directory.glob("part-*.arrow"))
            self._read(directory)  # parts that other processes added
            write_part(directory, _table(self._known | self.new))
            for path in old:
                path.unlink(missing_ok=True)  # without locks, another process may have merged them too

    def _read(self, directory: Path) -> None:
        def damaged(path: Path) -> None:
            self._damaged.add(path)
            self._report.warn(f"{path} is damaged (its checksum differs); its images will be read again.")

        self._parts = 0
        for path, (table, _) in read_parts(directory, damaged):
            self._parts += 1
            if table.schema != _table({}).schema:
                self._damaged.add(path)
                self._report.detail(f"{path} was written by another version of tlcli; its images will be read again.")
                continue
            columns = (column.to_pylist() for column in table.columns)
            for key, packed, digest in zip(*columns, strict=True):
                self._known[key] = (packed, digest)


def _may_still_change(image: DecodedImage) -> bool:
    """Whether the file may change after it was read and have the same stamp again, or its version is unknown."""
    modified, changed = image.stamp.modified, image.stamp.changed
    if modified == UNKNOWN or image.read - modified <= RACY_NANOSECONDS:  # entity tags are negative, and exact
        return True
    return image.read - changed <= (RACY_TICK if changed % 1_000_000_000 else RACY_NANOSECONDS)


def _key(path: str) -> bytes:
    return os.fsencode(absolute(path))


def _table(entries: DigestsByPath) -> pa.Table:
    return pa.table(
        {
            "path": pa.array(entries, pa.binary()),
            "stamp": pa.array([entry[0] for entry in entries.values()], pa.binary(STAMP_BYTES)),
            "digest": pa.array([entry[1] for entry in entries.values()], pa.binary(32)),
        }
    )
