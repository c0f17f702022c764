"""Where the images of a data set that tlcli writes go: `<split>/<class>/...`, whatever the names of the originals.

No name can lead out of the data set's folder, and none is lost when the folder is read again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePath

from tlcli.datasets.dataset import Dataset, Sample
from tlcli.datasets.walk import has_image_suffix, is_hidden
from tlcli.errors import DataError

LONGEST = 255
"""Bytes of the longest name that the usual file systems take."""


def check_folder_names(classes: Sequence[str]) -> None:
    """Refuse classes that no folder can be named after; a folder's class is always its name.

    Raises:
        DataError: a name is empty, hidden, has a slash in it, or is too long.
    """
    for name in classes:
        if not name or "/" in name or "\0" in name or is_hidden(name) or len(os.fsencode(name)) > LONGEST:
            raise DataError(
                f"class {name!r} cannot be a folder's name, which is how a data set in folders says its classes. "
                f"Rename it: without slashes, at most {LONGEST} bytes long, and not beginning with a dot."
            )


def original_path(dataset: Dataset, sample: Sample, digest: bytes) -> str:
    """Where the original of a sample goes, below the new data set's folder.

    From a folder, it keeps its path below its class. From a table, whose images may lie anywhere, it gets a name
    that begins with its digest.
    """
    if dataset.in_folders:
        parts = PurePath(os.path.relpath(sample.path, dataset.root)).parts
        below = PurePath(*parts[1 if dataset.samples[0].split is None else 2 :])
    else:
        stem, suffix = os.path.splitext(os.path.basename(sample.path))  # noqa: PTH119, PTH122 - may be any bytes
        if not has_image_suffix(f"x{suffix}"):
            # Images are found by their suffix, and then decoded by their content: any will do.
            stem, suffix = stem + suffix, ".jpg"
        below = PurePath(_named(f"{digest.hex()[:16]}-{stem}", suffix))
    return str(PurePath(sample.split or "train", dataset.classes[sample.label], below))


def view_path(original: str, digest: bytes, view: int) -> str:
    """Where a view goes: beside its original, as `<stem>~<digest>-v<view>.png`."""
    if view == 0:
        return original
    path = PurePath(original)
    return str(path.with_name(_named(path.stem, f"~{digest.hex()[:8]}-v{view}.png")))


def _named(stem: str, end: str) -> str:
    """`stem` and `end`, the stem without its last characters where both would be too long for a name."""
    while len(os.fsencode(stem)) + len(os.fsencode(end)) > LONGEST:
        stem = stem[:-1]
    return stem + end
