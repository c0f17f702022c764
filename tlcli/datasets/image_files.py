"""Decide by suffix which files are images, without opening them."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .avif .heic .heif".split()
)
COMMON_SUFFIXES = ".jpg, .jpeg, .png, .webp, .bmp, .gif, .tif, ..."
"""The suffixes to name in messages."""


def is_hidden(name: str) -> bool:
    """Return whether a name is hidden, as files that tools create are: `.DS_Store`, `._image.jpg`, ..."""
    return name.startswith(".")


def has_image_suffix(name: str) -> bool:
    """Return whether a file name has the suffix of an image format, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - pathlib is slow for a million files


def walk_images(root: str, skipped: Counter[str], on_error: Callable[[OSError], None]) -> Iterator[str]:
    """Yield the paths of the image files below `root`, sorted; files come before the subfolders next to them.

    Links to files are followed; links to folders are not, since they could form a loop. A broken link, or a file in a
    folder that can be listed but not entered, counts as an image, which then cannot be read.

    Args:
        root: The folder to search for images.
        skipped: Counts skipped files and folders by reason.
        on_error: Called with the error of each folder that cannot be listed.
    """
    for folder, folders, files in os.walk(root, onerror=on_error):
        linked = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118
        hidden = [name for name in folders if is_hidden(name)]
        skipped["linked folders"] += len(linked)
        skipped["hidden folders"] += len(hidden)
        folders[:] = sorted(set(folders) - set(linked) - set(hidden))
        for name in sorted(files):
            path = os.path.join(folder, name)  # noqa: PTH118
            if is_hidden(name):
                skipped["hidden files"] += 1
            elif not has_image_suffix(name):
                skipped["not images by their suffix"] += 1
            elif _is_special_file(path):
                skipped["no ordinary files"] += 1
            else:
                yield path


def _is_special_file(path: str) -> bool:
    """Return whether this is certainly not a regular file. If it cannot be checked, reading it reports the reason."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - pathlib is slow for a million files
    except OSError:
        return False
