"""Correct the labels of DATA with a table, before classes, splits, and groups are derived from them.

A correction belongs to the bytes of an image, not to its path: it applies wherever the image is, and to all its copies.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tlcli.datasets.class_names import appearance, standard_name
from tlcli.datasets.labeled_image import LabeledImage
from tlcli.datasets.tables.correction_table import CorrectionTable
from tlcli.errors import DataError
from tlcli.storage.files import portable_name
from tlcli.storage.stored import UNKNOWN, StoredPath
from tlcli.storage.urls import Location, absolute

ReadDigests = Callable[[Sequence[str]], Sequence[bytes | None]]
"""Returns the SHA-256 of each file by its path; None if it cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """A table of corrections, and how to read the digests of images."""

    table: CorrectionTable
    read_digests: ReadDigests


@dataclass(frozen=True, kw_only=True)
class AppliedCorrections:
    """What a table of corrections changed."""

    file: Location
    rows: int
    """Number of its rows."""
    corrected: int
    """Images that got another label."""
    left_out: int
    """Images that were left out."""
    left_out_digests: frozenset[bytes]
    """Digests of the rows that leave out an image, whether they match one or not."""
    already_correct: int
    """Images that had the new label already."""
    unmatched: tuple[str, ...]
    """Paths of the rows that match no image, as written."""

    def describe(self) -> str:
        """Return one line."""
        parts = [f"{self.corrected:,} corrected"]
        if self.left_out:
            parts.append(f"{self.left_out:,} {'image' if self.left_out == 1 else 'images'} left out")
        if self.already_correct:
            parts.append(f"{self.already_correct:,} already correct")
        return f"Labels    {', '.join(parts)} ({portable_name(str(self.file))})"

    def describe_unmatched(self) -> str | None:
        """Return a warning about rows that match no image; None if all match."""
        if not self.unmatched:
            return None
        match = "matches" if len(self.unmatched) == 1 else "match"
        return (
            f"{len(self.unmatched):,} of the {self.rows:,} corrections in {portable_name(str(self.file))} {match} no "
            f"image, such as that of {portable_name(self.unmatched[0])}, which was changed, removed, or excluded."
        )

    def option(self) -> str:
        """Return the option as it is typed, after a space, to append to a command."""
        return f" --corrections {shlex.quote(portable_name(str(self.file)))}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "file": portable_name(absolute(self.file)),
            "corrected": self.corrected,
            "left_out": self.left_out,
            "already_correct": self.already_correct,
            "unmatched": len(self.unmatched),
        }


def correct_labels(
    images: Sequence[LabeledImage], corrections: Corrections, data: Location, classes: Sequence[str] | None
) -> tuple[list[LabeledImage], AppliedCorrections]:
    """Return the images with their correct labels, without those that are left out.

    An image whose label is neither the old nor the new one was relabeled in the meantime. If copies of an image have
    different labels, one of which is the old label, all of them get the new one.

    Args:
        images: The images of DATA, whose class names are unified.
        corrections: The table to apply.
        data: DATA, for messages.
        classes: The classes of a run, to which new labels must belong; None allows new classes.

    Raises:
        DataError: No correction matches an image, an image was relabeled in the meantime, or a new label is not one of
            `classes` or differs from another one only in case or spaces.
    """
    table = corrections.table
    found = _matching_digests([image.path for image in images], table, corrections.read_digests)
    copies: defaultdict[bytes, list[LabeledImage]] = defaultdict(list)
    for index, digest in found.items():
        copies[digest].append(images[index])
    unmatched = tuple(row.path for row in table.rows if row.digest not in copies)
    if not copies:
        raise DataError(
            f"none of the {len(table.rows):,} corrections in {table.file} matches an image of {data}: no "
            f"file has one of their digests (SHA-256), such as that of {unmatched[0]}. Pass the corrections of this "
            "dataset, or remove --corrections.",
            path=table.file,
        )
    names = _new_names(images, table, copies, classes)
    _check_old_labels(table, copies, names, data)
    corrected: list[LabeledImage] = []
    counts: Counter[str] = Counter()
    for index, image in enumerate(images):
        label = names[found[index]] if index in found else image.label
        if label is None:
            counts["left out"] += 1
            continue
        if index in found:
            counts["correct" if label == image.label else "corrected"] += 1
        corrected.append(image if label == image.label else replace(image, label=label))
    return corrected, AppliedCorrections(
        file=table.file,
        rows=len(table.rows),
        corrected=counts["corrected"],
        left_out=counts["left out"],
        left_out_digests=frozenset(row.digest for row in table.rows if row.new is None),
        already_correct=counts["correct"],
        unmatched=unmatched,
    )


def _matching_digests(paths: Sequence[str], table: CorrectionTable, read_digests: ReadDigests) -> dict[int, bytes]:
    """Return the digest of each image that a correction is for, by its index in `paths`.

    The files that the corrections name are read first. If these match all corrections, others can only be copies of
    them, so only files of the same sizes are read; otherwise, all are.
    """
    wanted = {row.digest for row in table.rows}
    named = {table.locate(row) for row in table.rows}
    found: dict[int, bytes] = {}

    def read(indices: Sequence[int]) -> None:
        digests = read_digests([paths[index] for index in indices])
        for index, digest in zip(indices, digests, strict=True):
            if digest is not None and digest in wanted:
                found[index] = digest

    first = {index for index, path in enumerate(paths) if absolute(path) in named}
    read(sorted(first))
    rest = [index for index in range(len(paths)) if index not in first]
    if wanted <= set(found.values()):
        sizes = {None, *(_size(paths[index]) for index in found)}
        rest = [index for index in rest if _size(paths[index]) in sizes]
    read(rest)
    return found


def _size(path: str) -> int | None:
    """Return the size of an image's file in bytes; None if it is unknown."""
    if isinstance(path, StoredPath):
        return None if path.size == UNKNOWN else path.size
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a path may be any bytes, and there may be a million
    except (OSError, ValueError):
        return None


def _new_names(
    images: Sequence[LabeledImage],
    table: CorrectionTable,
    copies: Mapping[bytes, Sequence[LabeledImage]],
    classes: Sequence[str] | None,
) -> dict[bytes, str | None]:
    """Return the new label of each digest that was found, in the form in which DATA or the run writes it."""
    forms = {appearance(name): name for name in (*dict.fromkeys(image.label for image in images), *(classes or ()))}
    names: dict[bytes, str | None] = {}
    for index, row in enumerate(table.rows):
        if row.digest not in copies or row.new is None:
            names[row.digest] = None
            continue
        name = forms.setdefault(appearance(row.new), row.new)
        if standard_name(name) != row.new:
            raise DataError(
                f"{table.file}, {table.describe_row(index)}: the new label {row.new!r} looks like the class {name!r}: "
                f"they differ only in case or spaces. Write {name!r}.",
                path=table.file,
            )
        if classes is not None and name not in classes:
            raise DataError(
                f"{table.file}, {table.describe_row(index)}: the new label {row.new!r} is not one of the "
                f"{len(classes)} classes of the run: {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}. "
                "Use a run that was trained with this class, or remove the row.",
                path=table.file,
            )
        names[row.digest] = name
    return names


def _check_old_labels(
    table: CorrectionTable,
    copies: Mapping[bytes, Sequence[LabeledImage]],
    names: Mapping[bytes, str | None],
    data: Location,
) -> None:
    """Check that images have the old label, unless they or their copies were corrected already."""
    old: defaultdict[bytes, set[str]] = defaultdict(set)
    for row in table.rows:
        old[row.digest].add(appearance(row.old))
    for index, row in enumerate(table.rows):
        found = copies.get(row.digest, ())
        if any(appearance(image.label) in old[row.digest] for image in found):
            continue
        other = next((image for image in found if image.label != names[row.digest]), None)
        if other is not None:
            change = f"changes {row.old!r} to {row.new!r}" if row.new is not None else f"leaves it out of {row.old!r}"
            raise DataError(
                f"{other.path} has the label {other.label!r} in {data}, but {table.file}, {table.describe_row(index)} "
                f"{change}: the image was relabeled in the meantime. To keep {other.label!r}, remove the row; to apply "
                f"the row, replace {row.old!r} with {other.label!r} in it.",
                path=other.path,
            )
