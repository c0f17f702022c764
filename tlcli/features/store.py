"""The feature store: the features of a frozen prefix, by the digest of each image's bytes and the view.

It holds no paths and no labels, so moving or relabeling images invalidates nothing.

Shapes: N rows; a feature has the shape `feature_shape`.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tlcli.errors import READ_ONLY_ERRNOS, ArtifactError, MachineError
from tlcli.features.fingerprint import FORMAT, fingerprint
from tlcli.features.parts import PREFIX, MappedPart, map_part, read_parts, write_part
from tlcli.features.rounding import Features, as_stored, stored_dtype
from tlcli.progress import Reporter, Silent
from tlcli.storage.files import is_sealed, read_json, sealed, write_json
from tlcli.storage.locks import locked
from tlcli.storage.publish import remove_temporary_files

RowIndices = npt.NDArray[np.int64]
"""int64 [N, 2]: the part and the row in it of each feature."""

FLUSH_BYTES = 64 * 2**20
FLUSH_SECONDS = 2.0
"""A kill loses at most this many bytes or seconds of work."""


class FeatureStore:
    """Features on disk (or in memory only), found by digest and view.

    Args:
        root: The cache directory; None keeps everything in memory.
        content: The ingredients of the fingerprint.
        shape: Shape of one feature.
        report: Receives warnings about damage, and about waiting for another writer.
        shared_writers: Write at the same time as other processes that set this too, instead of excluding all others.

    Raises:
        ArtifactError: the directory of this fingerprint has another format.
        MachineError: the cache cannot be written or locked.
    """

    def __init__(
        self,
        root: Path | None,
        content: dict[str, Any],
        shape: tuple[int, ...],
        report: Reporter | None = None,
        *,
        shared_writers: bool = False,
    ) -> None:
        self.shape = shape
        self.content = content
        self.fingerprint = fingerprint(content)
        self.directory = None if root is None else root / self.fingerprint
        self._report: Reporter = report or Silent()
        self.shared_writers = shared_writers
        self.locked = False
        """Whether this process holds the writer's lock."""
        self._damaged: set[str] = set()
        """Names of damaged part files that were reported."""
        self._seen: set[str] = set()
        """Names of the part files that were read."""
        self._parts: list[Features] = []
        self._mapped: list[MappedPart] = []
        """Part files whose rows are in `_parts`."""
        self._rows: dict[tuple[bytes, int], tuple[int, int]] = {}
        self._pending: list[tuple[bytes, int, Features]] = []
        self._flushed = time.monotonic()
        if self.directory is not None and (self.directory / "cache.json").exists():
            self._check_header(self.directory)
            self._read(self.directory, self._warn_of)

    def __contains__(self, key: tuple[bytes, int]) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def keys(self) -> frozenset[tuple[bytes, int]]:
        """Return digest and view of every feature."""
        return frozenset(self._rows)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that holds every feature exactly: `stored_dtype`, or float32 if one overflows it."""
        return np.result_type(stored_dtype(self.shape), *{part.dtype for part in self._parts})

    def row_values(self) -> int:
        """Return the number of values in one feature."""
        return math.prod(self.shape)

    def row_bytes(self) -> int:
        """Return the approximate size of a row on disk, in bytes. A row that overflows float16 takes twice as much."""
        return self.row_values() * stored_dtype(self.shape).itemsize + 36

    def gather(self, digests: Iterable[bytes], view: int = 0) -> npt.NDArray[np.float32]:
        """Return the features of images in the given order: float32 [N, *feature_shape]. Only these rows are read."""
        return self.read(self.places((digest, view) for digest in digests))

    def places(self, keys: Iterable[tuple[bytes, int]]) -> RowIndices:
        """Return the row indices of features, for `read`. They are valid until something is added."""
        return np.array([self._rows[key] for key in keys], np.int64).reshape(-1, 2)

    def read(self, places: RowIndices) -> npt.NDArray[np.float32]:
        """Return the features at some row indices: float32 [N, *feature_shape]. Only these rows are read."""
        found = np.empty((len(places), *self.shape), np.float32)
        for part in np.unique(places[:, 0]).tolist():
            into = np.flatnonzero(places[:, 0] == part)
            found[_as_slice(into)] = self._parts[part][_as_slice(places[into, 1])]
        return found

    def release(self) -> None:
        """Drop the rows that were read from memory, as far as they are on disk; they can be read again."""
        for part in self._mapped:
            part.release()

    def make(self) -> Path | None:
        """Create the directory if necessary, so that it is listed and can be pruned; None if the store is in memory.

        Raises:
            MachineError: it cannot be written.
        """
        if self.directory is not None:
            with _writable(self.directory):
                self.directory.mkdir(parents=True, exist_ok=True)
                if not (self.directory / "cache.json").exists():
                    write_json(self.directory / "cache.json", self._header())
        return self.directory

    @contextlib.contextmanager
    def writing(self) -> Iterator[FeatureStore]:
        """Hold the writer's lock. Rows added in the block are on disk when it ends, even if it raises."""
        with contextlib.ExitStack() as stack:
            if self.directory is not None:
                with _writable(self.directory):
                    self.make()
                    wait = f"is writing {self.directory}; waiting for it to finish (press Ctrl-C to cancel)."
                    shared = self.shared_writers
                    held = stack.enter_context(locked(self.directory / ".lock", self._report, wait=wait, shared=shared))
                    if held and not shared:
                        remove_temporary_files(self.directory, PREFIX)  # with shared writers, they may be in use
                self._read(self.directory, self._remove)  # another writer may have added some
            self.locked = True
            try:
                yield self
            finally:
                self.locked = False
                self._flush()

    def refresh(self) -> None:
        """Read what other processes have written."""
        if self.directory is not None:
            self._read(self.directory, self._warn_of)

    def add(self, digest: bytes, view: int, feature: Features) -> None:
        """Add one image's feature. Only inside `writing`."""
        self._pending.append((digest, view, as_stored(feature)))
        due = time.monotonic() - self._flushed > FLUSH_SECONDS
        if due or len(self._pending) * self.row_bytes() > FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        pending, self._pending = self._pending, []
        for dtype in {feature.dtype for _, _, feature in pending}:
            self._write([row for row in pending if row[2].dtype == dtype])

    def _write(self, rows: list[tuple[bytes, int, Features]]) -> None:
        """Write rows, whose features are all of one dtype, as a part."""
        digests, views, features = zip(*rows, strict=True)
        table = pa.table(
            {
                "digest": pa.array(digests, pa.binary(32)),
                "view": pa.array(views, pa.int32()),
                "feature": pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(features)),
            }
        )
        if self.directory is not None:
            path = write_part(self.directory, table)
            self._seen.add(path.name)
            self._append_mapped(map_part(path))  # so that memory does not grow with what was computed
        else:
            self._append(table)

    def _append_mapped(self, part: MappedPart) -> None:
        self._mapped.append(part)
        self._append(part.table)

    def _append(self, table: pa.Table) -> None:
        for batch in table.to_batches():
            keys = zip(batch.column("digest").to_pylist(), batch.column("view").to_pylist(), strict=True)
            self._rows.update({key: (len(self._parts), row) for row, key in enumerate(keys)})
            self._parts.append(batch.column("feature").to_numpy_ndarray())

    def _read(self, directory: Path, damaged: Callable[[Path], None]) -> None:
        """Read new parts; those whose checksum differs go to `damaged`."""
        for path, part in read_parts(directory, damaged, self._seen):
            self._seen.add(path.name)
            if self._fits(part.table):
                self._append_mapped(part)
            else:
                self._report.warn(f"{path} holds no features of this cache and was ignored.")

    def _fits(self, table: pa.Table) -> bool:
        """Return whether a part has the columns that `_write` makes."""
        if table.column_names != ["digest", "view", "feature"] or any(column.null_count for column in table.columns):
            return False
        digest, view, feature = table.schema.types
        return (
            (digest, view) == (pa.binary(32), pa.int32())
            and isinstance(feature, pa.FixedShapeTensorType)
            and tuple(feature.shape) == self.shape
            and list(feature.permutation or range(len(self.shape))) == list(range(len(self.shape)))
            and feature.value_type in {pa.float16(), pa.float32()}
        )

    def _warn_of(self, path: Path) -> None:
        if path.name not in self._damaged:
            self._damaged.add(path.name)
            self._report.warn(f"{path} is damaged (its checksum differs); its features will be computed again.")

    def _remove(self, path: Path) -> None:
        self._warn_of(path)
        path.unlink(missing_ok=True)

    def _header(self) -> dict[str, Any]:
        return sealed(
            {
                "format": FORMAT,
                "fingerprint": self.fingerprint,
                "ingredients": self.content,
                "feature_shape": list(self.shape),
                "dtype": stored_dtype(self.shape).name,
                "written": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )

    def _check_header(self, directory: Path) -> None:
        try:
            header = read_json(directory / "cache.json", "a feature cache of tlcli")
        except ArtifactError as error:
            self._restore_header(directory, error.message)
            return
        if header.get("format") == FORMAT and not is_sealed(header):
            self._restore_header(directory, f"{directory / 'cache.json'} is damaged (its checksum differs).")
            return
        if header.get("format") != FORMAT:
            raise ArtifactError(
                f"{directory} has cache format {header.get('format')}; this tlcli reads {FORMAT}. Remove it, or choose "
                "another --cache DIR.",
                path=directory,
            )
        with contextlib.suppress(OSError):  # a read-only cache only loses the time of last use
            os.utime(directory / "cache.json")

    def _restore_header(self, directory: Path, problem: str) -> None:
        """Write the header again. It is for people: the directory name and the checksums of the parts suffice."""
        self._report.warn(f"{problem} It will be written again.")
        with contextlib.suppress(OSError):  # a read-only cache stays as it is
            write_json(directory / "cache.json", self._header())


def _as_slice(rows: RowIndices) -> RowIndices | slice:
    """Return consecutive rows, the usual case, as a slice: it is copied once, straight from the mapped file."""
    return slice(rows[0], rows[-1] + 1) if bool((np.diff(rows) == 1).all()) else rows


@contextlib.contextmanager
def _writable(directory: Path) -> Iterator[None]:
    """Explain what to do if `directory` cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno not in READ_ONLY_ERRNOS:
            raise
        raise MachineError(
            f"the cache {directory} cannot be written: {error.strerror}. Choose another with --cache DIR or "
            "TLCLI_CACHE, or use --no-cache.",
            path=directory,
        ) from error
