"""INPUT of `tlcli predict`: files, folders, tar shards, and lists, as a sequence of paths that can be iterated again.

Paths are listed once, into a temporary file. Memory use stays constant, and an image that is deleted later keeps its
row.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import os
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO

from tlcli.datasets.folders.tree import ListedTree, LocalTree, Tree, walk
from tlcli.datasets.image_files import describe_skipped
from tlcli.datasets.path_filter import EXCLUDED, PathFilter
from tlcli.datasets.path_spool import read_spool, write_spool
from tlcli.datasets.tables.suffixes import is_table
from tlcli.datasets.tars import images_in, is_tar, open_tars, resolve_tar_member
from tlcli.errors import DataError, UsageError
from tlcli.settings.columns import TableColumns
from tlcli.settings.filters import PathPatterns
from tlcli.settings.machines import Shard
from tlcli.storage.files import from_portable_name, portable_name
from tlcli.storage.remote import content_of, listing
from tlcli.storage.stored import UNKNOWN, StoredPath, stamp
from tlcli.storage.urls import Url, is_url, parse_location


class PredictionInputs:
    """Paths of the images to predict, in order. The first iteration lists them.

    Args:
        inputs: Files, folders, tables, WebDataset shards, `@list.txt` (one path per line), or `-` (the same from
            standard input); on this machine or at URLs.
        stdin: File to read for `-`.
        shard: Restrict the paths to this shard; None keeps all.
        filters: Drops images by their path below a folder or in a tar, or by the path as typed or listed.
        columns: The column to read of inputs that are tables; None recognizes common headers.

    Raises:
        DataError: An input is empty or does not exist, or a list is a folder.
        UsageError: `columns` has no effect.
    """

    def __init__(
        self,
        inputs: tuple[str, ...],
        stdin: IO[bytes],
        shard: Shard | None = None,
        filters: PathPatterns | None = None,
        columns: TableColumns | None = None,
    ) -> None:
        self.skipped: Counter[str] = Counter()
        self.unlisted: list[str] = []
        """Folders that could not be listed, each with the reason."""
        self.total = 0
        """Number of images of all shards, known after the first iteration has started."""
        self._inputs = tuple(map(_decode_file_uri, inputs))
        self._stdin = stdin
        self._shard = shard
        self._filter = PathFilter(filters)
        self._columns = columns or TableColumns()
        self._spool: IO[bytes] | None = None
        for name in self._inputs:
            _check_input(name)
        if self._columns.given() and not any(map(_is_table, self._inputs)):
            raise UsageError("--image-column has no effect: no INPUT is a table. Remove the option.")

    def __iter__(self) -> Iterator[str]:
        if self._spool is None:
            self._spool, self.total = write_spool(self._paths())
            if self._shard is not None:
                chosen = self._shard.range(self.total)
                with self._spool as everything:
                    self._spool, _ = write_spool(islice(read_spool(everything), chosen.start, chosen.stop))
            weakref.finalize(self, self._spool.close)
        return read_spool(self._spool)

    def count_and_digest(self, *, with_stamps: bool) -> tuple[int, str]:
        """Return the number of images and a SHA-256 of their paths and, `with_stamps`, sizes and times of change."""
        digest, images = hashlib.sha256(), 0
        for path in self:
            digest.update(os.fsencode(path) + b"\0")
            if with_stamps:
                with contextlib.suppress(OSError, ValueError):  # a missing image gets a failed row
                    found = stamp(path)  # device and inode may differ after a remount, and the time of change suffices
                    digest.update(f"{found.size} {found.modified} {found.changed}\0".encode())
            images += 1
        return images, digest.hexdigest()

    def unused_filters(self) -> list[str]:
        """Return the filters that matched nothing, once the images are listed."""
        return self._filter.unused()

    def no_images(self, option: str = "") -> DataError:
        """Return the error for inputs without images, once they are listed.

        Args:
            option: The option that names the inputs, such as `--unlabeled: `.
        """
        skipped = describe_skipped({reason: count for reason, count in self.skipped.items() if count})
        return DataError(
            f"{option}no images in {', '.join(self._inputs)} (skipped: {skipped or 'nothing'}). Pass images, folders, "
            "tables, tars, URLs, or @lists of images.",
            path=self._inputs[0],
        )

    def _paths(self) -> Iterator[str]:
        stdin_lines: list[str] | None = None
        for name in self._inputs:
            if name == "-":
                if stdin_lines is None:  # standard input can be read only once
                    stdin_lines = list(_list_paths(self._stdin)) if self._inputs.count("-") > 1 else None
                yield from self._kept(_list_paths(self._stdin) if stdin_lines is None else stdin_lines)
            elif name.startswith("@"):
                with _open_list(name[1:]) as file:
                    yield from self._kept(_list_paths(file))
            elif os.path.isdir(name):  # noqa: PTH112
                yield from self._in_folder(LocalTree(name))
            elif _is_table(name):
                from tlcli.datasets.tables.read import read_image_column  # imported late: most inputs are not tables

                yield from self._kept(read_image_column(parse_location(name), self._columns))
            elif is_tar(name):
                for shard in open_tars(name):
                    yield from images_in(shard, self.skipped, self._filter)
            elif is_url(name):
                yield from self._paths_at_url(Url(name))
            else:
                yield from self._kept([resolve_tar_member(name)])

    def _paths_at_url(self, url: Url) -> Iterator[str]:
        path = resolve_tar_member(str(url))
        if isinstance(path, StoredPath):
            yield from self._kept([path])
            return
        found = listing(url)
        if "" in found:
            yield from self._kept([found[""]])
        else:
            yield from self._in_folder(ListedTree(str(url), found))

    def _in_folder(self, tree: Tree) -> Iterator[str]:
        for folder in walk(tree, self._filter, self.skipped, self._note_unlisted):
            yield from folder.images

    def _kept(self, paths: Iterable[str]) -> Iterator[str]:
        """Yield the paths that the filter keeps, as they are typed or listed."""
        for path in paths:
            if not self._filter or self._filter.keeps(path):
                yield path
            else:
                self.skipped[EXCLUDED] += 1

    def _note_unlisted(self, problem: OSError) -> None:
        self.unlisted.append(f"{portable_name(problem.filename)} cannot be listed: {problem.strerror}")


def _is_table(name: str) -> bool:
    """Return whether an input is a table, by its suffix."""
    return not name.startswith("@") and is_table(parse_location(name))


def _decode_file_uri(name: str) -> str:
    """Replace a `file://` URI by its path."""
    at = "@" if name.startswith("@") else ""
    return at + from_portable_name(name.removeprefix(at))


def _check_input(name: str) -> None:
    if name in {"", "@"}:
        raise DataError(f"an INPUT is empty ({name!r}). Pass images, folders, or lists.", path=name)
    if name == "-":
        return
    if not _exists(name):
        raise DataError(
            f"{name.removeprefix('@')} does not exist. Check the path; expected images, folders, or lists.", path=name
        )
    if name.startswith("@") and os.path.isdir(name[1:]):  # noqa: PTH112
        raise DataError(
            f"{name[1:]} is a folder; expected a list after @, with one path per line. Remove the @ to predict the "
            "folder.",
            path=name,
        )


def _exists(name: str) -> bool:
    """Return whether an input exists; for URLs and shards, opening them reports what is missing."""
    if is_url(name.removeprefix("@")) or (is_tar(name) and not name.startswith("@")):
        return True
    path = resolve_tar_member(name.removeprefix("@"))
    return isinstance(path, StoredPath) or os.path.exists(path)  # noqa: PTH110


def _list_paths(file: IO[bytes]) -> Iterator[str]:
    """Yield the paths of a list, one per line."""
    for number, raw in enumerate(file):
        line = raw.removeprefix(codecs.BOM_UTF8) if number == 0 else raw
        if path := line.rstrip(b"\r\n"):
            name = from_portable_name(os.fsdecode(path))
            yield _listed_url(name, number) if is_url(name) else resolve_tar_member(name)


def _listed_url(name: str, number: int) -> str:
    """Return the path of an image at a URL in a list; whether it exists is checked when it is read."""
    try:
        path = resolve_tar_member(str(Url(name)))
    except UsageError as error:
        raise DataError(f"line {number + 1:,} of the list: {error.message}") from error
    return path if isinstance(path, StoredPath) else StoredPath(path, path, size=UNKNOWN, version=UNKNOWN)


def _open_list(name: str) -> IO[bytes]:
    if is_url(name):
        return io.BytesIO(content_of(Url(name)))
    return open(name, "rb")  # noqa: PTH123 - a path as typed, which may be any bytes
