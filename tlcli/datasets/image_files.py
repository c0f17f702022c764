"""Decide by name which files are images, and which are leftovers of other programs, without opening them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

IMAGE_SUFFIXES = frozenset(
    (
        ".jpg .jpeg .jpe .jfif .pjpeg .pjp .mpo .png .apng .webp .bmp .dib .gif .tif .tiff "
        ".ppm .pgm .pbm .pnm .avif .heic .heif"
    ).split()
)
COMMON_SUFFIXES = ".jpg, .jpeg, .png, .webp, .bmp, .gif, .tif, ..."
"""The suffixes to name in messages."""

_LEFT_OVERS = {
    name.casefold(): name
    for name in (
        # folders: macOS, Synology, QNAP, NetApp, Linux, Windows, Jupyter, Python, Picasa
        *("__MACOSX", ".Trashes", ".Trash", ".AppleDouble", ".Spotlight-V100", ".fseventsd", ".TemporaryItems"),
        *("@eaDir", "@tmp", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", ".@__thumb", "~snapshot"),
        *("lost+found", ".thumbnails", ".snapshot", "$RECYCLE.BIN", "RECYCLER", "System Volume Information"),
        *(".ipynb_checkpoints", "__pycache__", ".picasaoriginals", ".dropbox.cache"),
        # files
        *(".DS_Store", "Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", ".picasa.ini", "Picasa.ini"),
        *("ZbThumbnail.info", ".nomedia", "Icon\r"),
    )
}
"""Names that other programs leave in folders of images, by their case-folded form."""

_COUNTED_SUFFIX = re.compile(r"\.[\w~+-]{1,16}", re.ASCII)
_SHOWN_SUFFIXES = 8


def is_hidden(name: str) -> bool:
    """Return whether a name is hidden, as files that tools create are: `.DS_Store`, `._image.jpg`, ..."""
    return name.startswith(".")


def has_image_suffix(name: str) -> bool:
    """Return whether a file name has the suffix of an image format, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - pathlib is slow for a million files


def skipped_folder(name: str) -> str | None:
    """Return the reason to skip a folder, by its name; None for other folders."""
    if (known := _LEFT_OVERS.get(name.casefold())) or re.fullmatch(r"\.Trash-\d+", name, re.IGNORECASE):
        return f"in {known or '.Trash'}"
    return "hidden folders" if is_hidden(name) else None


def skipped_file(name: str) -> str | None:
    """Return the reason to skip a file, by its name: hidden, or left by another program; None for other files."""
    if is_hidden(name):
        return "._*" if name.startswith("._") else _LEFT_OVERS.get(name.casefold(), "hidden files")
    return _LEFT_OVERS.get(name.casefold()) if name.endswith((".db", ".ini", ".info", "\r", ".DB", ".INI")) else None


def other_suffix(name: str) -> str:
    """Return the reason to skip a file that is not an image by its name: its suffix, such as `.txt`."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    if not suffix:
        return "without a suffix"
    return suffix if _COUNTED_SUFFIX.fullmatch(suffix) else "other suffixes"


def skipped_path(parts: list[str]) -> str | None:
    """Return the reason to skip a file of an archive, by the names of its folders and its own."""
    for folder in parts[:-1]:
        if folder != "." and (reason := skipped_folder(folder)):
            return "hidden files" if reason == "hidden folders" else reason
    return skipped_file(parts[-1])


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """Return what was skipped in one line: `12 in @eaDir, 3 hidden files, not images: .xml 120, .txt 3`."""
    suffixes = sorted((reason for reason in skipped if _is_suffix(reason)), key=lambda name: (-skipped[name], name))
    named = [f"{count:,} {reason}" for reason, count in skipped.items() if reason not in suffixes]
    shown = [f"{suffix} {skipped[suffix]:,}" for suffix in suffixes[:_SHOWN_SUFFIXES]]
    if rest := suffixes[_SHOWN_SUFFIXES:]:
        shown.append(f"{len(rest)} more {sum(skipped[suffix] for suffix in rest):,}")
    return ", ".join(named + ([f"not images: {', '.join(shown)}"] if shown else []))


def _is_suffix(reason: str) -> bool:
    if reason in {"without a suffix", "other suffixes"}:
        return True
    return bool(_COUNTED_SUFFIX.fullmatch(reason)) and reason.casefold() not in _LEFT_OVERS
