"""Which files are images: by suffix, before anything is opened."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .avif .heic .heif".split()
)
SUFFIXES_FOR_PEOPLE = ".jpg, .jpeg, .png, .webp, .bmp, .gif, .tif, ..."


def is_hidden(name: str) -> bool:
    """Names that tools leave behind: `.DS_Store`, `._image.jpg`, `.ipynb_checkpoints`, ..."""
    return name.startswith(".")


def has_image_suffix(name: str) -> bool:
    """Whether a file's name says that it is an image, in capitals or not."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - pathlib is slow a million times


def walk_images(root: str, skipped: Counter[str], unreadable: Callable[[OSError], None]) -> Iterator[str]:
    """Paths of the image files below `root`, sorted, folders after the files beside them.

    Links to files are followed, links to folders are not (they could loop); a link that leads nowhere, or a name in a
    folder that may be listed but not entered, is an image that can't be read. What is passed over is counted in
    `skipped` by reason; a folder that cannot be listed goes to `unreadable`.
    """
    for folder, folders, files in os.walk(root, onerror=unreadable):
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
            elif _is_something_else(path):
                skipped["no ordinary files"] += 1
            else:
                yield path


def _is_something_else(path: str) -> bool:
    """Whether this is no ordinary file for sure; of what cannot be looked at, whoever reads it says why."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - pathlib is slow a million times
    except OSError:
        return False
