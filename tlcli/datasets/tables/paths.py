"""Find the images that a table names. Paths in a table are relative to its folder.

A path that does not exist as written is tried without surrounding spaces, with slashes for backslashes, in the other
Unicode form of its names, and with the suffix of the only image of this stem. If no path of the table exists, images
may be named by their file names or stems only.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from tlcli.datasets.image_files import has_image_suffix, is_hidden
from tlcli.datasets.tables.parquet_table import image_bytes_error
from tlcli.datasets.tables.raw_table import RawTable
from tlcli.datasets.tars import resolve_tar_member
from tlcli.errors import DataError, UsageError
from tlcli.storage.files import from_portable_name
from tlcli.storage.remote import stat_all
from tlcli.storage.stored import StoredPath
from tlcli.storage.urls import Url, is_url


def written_paths(table: RawTable, name: str) -> list[str]:
    """Return the path of each row as it is written in the table.

    Raises:
        DataError: A path is missing, or is not text.
    """
    values = table.column(name)
    if not all(type(value) is str and value for value in values):
        for index, value in enumerate(values):
            if isinstance(value, bytes) and table.path.suffix.lower() == ".parquet":
                raise image_bytes_error(table.path, name, table.names, table.class_names, in_object=False)
            if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
                raise DataError(
                    f"{table.path}, {table.describe_row(index)}: the column {name} is empty. Fill in the path of the "
                    "image, or remove the row.",
                    path=table.path,
                )
            if not isinstance(value, (str, int)):
                raise DataError(
                    f"{table.path}, {table.describe_row(index)}: the column {name} holds {str(value)[:60]!r}; expected "
                    "the path of an image. Name the column with the paths with --image-column NAME.",
                    path=table.path,
                )
    return [from_portable_name(str(value)) for value in values]


def existing_paths(
    table: RawTable, written: Sequence[str], notes: list[str], is_used: Callable[[str], bool]
) -> list[str]:
    """Return the path of each image, as `find_images` does. Images that are not used need not exist.

    Raises:
        DataError: A path does not exist, or is not a valid URL.
    """
    paths, missing = find_images(table, written, notes)
    if missing := [index for index in missing if is_used(paths[index])]:
        raise _missing_error(table, [written[index] for index in missing], len(paths))
    return paths


def find_images(table: RawTable, written: Sequence[str], notes: list[str]) -> tuple[list[str], list[int]]:
    """Find the image of each row.

    Args:
        table: The table.
        written: The path of each row.
        notes: Receives a note if images were found elsewhere than at the paths in the table.

    Returns:
        The paths, with size and version if they are at a URL, and the indices of those that do not exist.

    Raises:
        DataError: A path is not a valid URL.
    """
    _names_by_form.cache_clear()
    _images_by_stem.cache_clear()
    paths = [resolve_path(table, index, path) for index, path in enumerate(written)]
    remote = [path for path in paths if is_url(path) and not isinstance(path, StoredPath)]
    known = dict(zip(remote, stat_all([Url(path) for path in remote]), strict=True)) if remote else {}
    missing = []
    for index, path in enumerate(paths):
        if path in known:
            paths[index] = known[path] or path
            missing += [] if known[path] else [index]
        elif not isinstance(path, StoredPath) and _is_missing(path):
            found = _written_otherwise(table, written[index])
            paths[index] = found or path
            missing += [] if found else [index]
    if missing and len(missing) == len(paths) and isinstance(table.path, Path):
        found_by_name = _found_by_name(table.path, written)
        if found_by_name is not None:
            folders = sorted({os.path.dirname(path) for path in found_by_name})  # noqa: PTH120
            notes.append(f"images found by name in {', '.join(folders[:3])}{', ...' if len(folders) > 3 else ''}")
            return found_by_name, []
    return paths, missing


def resolve_path(table: RawTable, index: int, written: str) -> str:
    """Resolve a path: absolute paths and URLs are unchanged, others are relative to the table's folder."""
    local = isinstance(table.path, Path)
    if not is_url(written) and (local or written.startswith("/")):
        while written.startswith("./"):
            written = written[2:].lstrip("/")
        return resolve_tar_member(table.in_folder(written))
    try:
        url = Url(written) if is_url(written) or local else table.path.parent / written
    except UsageError as error:
        raise DataError(f"{table.path}, {table.describe_row(index)}: {error.message}", path=table.path) from error
    return resolve_tar_member(str(url))


def _is_missing(path: str) -> bool:
    """Return whether a file certainly does not exist. If it cannot be checked, reading it reports the reason."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - pathlib is slow for many paths
    except OSError as error:
        return error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
    except ValueError:  # a NUL in the path
        return True


def _written_otherwise(table: RawTable, written: str) -> str | None:
    """Return the existing path of which `written` is another spelling, if there is one."""
    if isinstance(table.path, Url) or is_url(written):
        return None
    stripped = written.strip()
    for text in dict.fromkeys((stripped, stripped.replace("\\", "/"))):
        path = table.in_folder(text.removeprefix("./"))
        if text != written and not _is_missing(path):
            return path
        if not text.isascii() and (found := _in_other_form(path, _composed)):
            return found
        if not has_image_suffix(path):
            folder, name = os.path.split(path)
            if len(images := _images_by_stem(folder or ".").get(name, [])) == 1:
                return os.path.join(folder, images[0])  # noqa: PTH118
    return None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(name).casefold()


def _in_other_form(path: str, form: Callable[[str], str]) -> str | None:
    """Return the existing path whose names have the same form as those of `path`."""
    found = Path(path).anchor
    for part in Path(path).parts[1 if found else 0 :]:
        exact = os.path.join(found, part)  # noqa: PTH118
        name = part if os.path.lexists(exact) else _names_by_form(found or ".", form).get(form(part))
        if name is None:
            return None
        found = os.path.join(found, name)  # noqa: PTH118
    return None if _is_missing(found) else found


@cache
def _names_by_form(folder: str, form: Callable[[str], str]) -> dict[str, str]:
    """Return the names in a folder by their form."""
    try:
        return {form(name): name for name in os.listdir(folder)}  # noqa: PTH208
    except OSError:
        return {}


@cache
def _images_by_stem(folder: str) -> dict[str, list[str]]:
    """Return the names of the images in a folder by their stems."""
    images: defaultdict[str, list[str]] = defaultdict(list)
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208
            if has_image_suffix(name) and not is_hidden(name):
                images[os.path.splitext(name)[0]].append(name)  # noqa: PTH122
    return images


def _found_by_name(table: Path, written: Sequence[str]) -> list[str] | None:
    """Return the images whose file names or stems are `written`, in the table's folder or one folder below it.

    Returns:
        None unless each of them names exactly one image.
    """
    images: defaultdict[str, list[str]] = defaultdict(list)
    for path in _images_near(str(table.parent)):
        for key in _keys(path):
            images[key].append(path)
    found = [images.get(text.strip(), []) for text in written]
    return [paths[0] for paths in found] if all(len(paths) == 1 for paths in found) else None


def _keys(path: str) -> set[str]:
    """Return the name and the stem of a file."""
    name = os.path.basename(path)  # noqa: PTH119
    return {name, os.path.splitext(name)[0]}  # noqa: PTH122


def _images_near(folder: str) -> Iterator[str]:
    """Yield the images in a folder and in the folders in it."""
    for root, folders, names in os.walk(folder):
        folders[:] = [] if root != folder else sorted(name for name in folders if not is_hidden(name))
        yield from (
            os.path.join(root, name).removeprefix("./")  # noqa: PTH118
            for name in sorted(names)
            if has_image_suffix(name) and not is_hidden(name)
        )


def _missing_error(table: RawTable, missing: Sequence[str], total: int) -> DataError:
    """Return the error about paths that do not exist, with the likely reason."""
    count = f"{len(missing):,} of the {total:,} paths in it do"
    return DataError(
        f"{table.path}: {count} not exist, such as {', '.join(missing[:3])}. Paths are relative to the table's folder "
        f"({table.path.parent.absolute()}). {_reason(table, missing[0])}",
        path=table.path,
    )


def _reason(table: RawTable, written: str) -> str:
    """Return what is probably wrong with a path that does not exist, and what to do."""
    if isinstance(table.path, Url) or is_url(written):
        return "Correct the paths, or move the table."
    path = written.strip().replace("\\", "/")
    if not _is_missing(path):
        return f"They exist relative to the working directory: move the table there, as ./{table.path.name}."
    parts = path.split("/")
    for start in range(1, len(parts)):
        if not _is_missing(table.in_folder("/".join(parts[start:]))):
            prefix = written.strip()[: len("/".join(parts[:start])) + 1]
            return f"Remove {prefix!r} at their start: {'/'.join(parts[start:])} exists."
    if similar := _in_other_form(table.in_folder(path), _folded):
        return f"{similar} exists: correct the case in the table."
    if path.strip("'") != path:
        return "Remove the single quotes around them; only double quotes enclose a value."
    folder, _, name = path.rpartition("/")
    near = [image for image in _images_near(table.in_folder(folder) or ".") if name in _keys(image)]
    if len(near) > 1:
        return f"{near[0]} and {near[1]} have this name: write the folders into the paths."
    if near:
        return f"{near[0]} exists: write the paths with their folders and suffixes."
    return "Correct the paths, or move the table to the folder that they are relative to."
