"""Decide which columns of a table hold the images, the classes, the splits, and the groups.

A column is the one that an option names, or else one whose header is common for its role.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from tlcli.datasets.tables.headers import (
    FLAG_HEADERS,
    GROUP_HEADERS,
    IMAGE_HEADERS,
    LABEL_HEADERS,
    SPLIT_HEADERS,
    UNCLEAR,
    header_key,
)
from tlcli.datasets.tables.raw_table import RawTable
from tlcli.datasets.tables.values import are_flags, are_splits
from tlcli.errors import DataError, UsageError
from tlcli.settings.columns import NO_COLUMN, TableColumns


@dataclass(frozen=True, kw_only=True)
class ChosenColumns:
    """Names of the columns to read."""

    image: str
    label: str
    split: str | None
    group: str | None

    def note(self) -> str | None:
        """Return which columns are read; None if all have the documented names."""
        found = {"images": self.image, "classes": self.label, "splits": self.split, "groups": self.group}
        if set(found.values()) <= {"path", "label", "split", "group", None}:
            return None
        return "columns: " + ", ".join(f"{role} from {name}" for role, name in found.items() if name is not None)


def choose_columns(table: RawTable, wanted: TableColumns) -> ChosenColumns:
    """Choose the columns of a table of labeled images.

    Raises:
        DataError: Two columns have one name, a role has no column or several, or a column that looks like splits or
            groups cannot be read as such.
        UsageError: An option names a column that the table lacks, or two options name the same one.
    """
    image = choose_image_column(table, wanted)
    label = _named(table, "--label-column", wanted.label_column) or _recognized(
        table, "classes", LABEL_HEADERS, "--label-column", known=(image,)
    )
    split = _named(table, "--split-column", wanted.split_column)
    group = _named(table, "--group-column", wanted.group_column)
    taken = [image, label, *filter(None, (split, group))]
    if len(set(taken)) < len(taken):
        twice = next(name for name in taken if taken.count(name) > 1)
        raise UsageError(f"the column {twice} of {table.path} is used twice. Name another column for one of them.")
    rest = [name for name in table.names if name not in taken]
    if wanted.group_column is None:
        group = _one_of(table, "groups", "--group-column", _with_headers(rest, GROUP_HEADERS))
        if group is not None and are_splits(table.column(group)):
            raise _unclear_error(table, group)
        rest = [name for name in rest if name != group]
    if wanted.split_column is None:
        split = _one_of(table, "splits", "--split-column", _split_like(table, rest))
        rest = [name for name in rest if name != split]
        if wanted.group_column is None:
            _check_unclear(table, rest)
    return ChosenColumns(image=image, label=label, split=split, group=group)


def choose_image_column(table: RawTable, wanted: TableColumns) -> str:
    """Choose the column with the paths of the images; see `choose_columns`."""
    check_names(table)
    return _named(table, "--image-column", wanted.image_column) or _recognized(
        table, "images", IMAGE_HEADERS, "--image-column"
    )


def check_names(table: RawTable) -> None:
    """Check that the columns differ by more than case and spaces; columns without a name are never read.

    Raises:
        DataError: Two columns have one name.
    """
    seen: dict[str, str] = {}
    for name in filter(str.strip, table.names):
        key = name.strip().casefold()
        if key in seen:
            raise DataError(
                f"{table.path} has two columns called {seen[key]!r} and {name!r}. Rename or remove one of them.",
                path=table.path,
            )
        seen[key] = name


def _named(table: RawTable, option: str, name: str | None) -> str | None:
    """Return the column that an option names; None if it names none."""
    if name is None or (name == NO_COLUMN and option in {"--split-column", "--group-column"}):
        return None
    if name in table.names:
        return name
    found = [other for other in table.names if header_key(other) == header_key(name)]
    if len(found) != 1:
        raise UsageError(f"{option} {name}: {table.path} has no such column; it has {_listed(table.names)}.")
    return found[0]


def _recognized(
    table: RawTable, role: str, headers: Sequence[Sequence[str]], option: str, known: Iterable[str] = ()
) -> str:
    """Return the only column with a common header of a required role."""
    rest = [name for name in table.names if name not in known]
    for alternatives in headers:
        if found := _with_headers(rest, alternatives):
            return _one_of(table, role, option, found) or found[0]
    expected = f"{headers[0][0]}, {', '.join(headers[1][:3])}, ..."
    raise DataError(
        f"{table.path} lacks a column of {role}; it has {_listed(table.names)}. Name the column with {option} NAME, or "
        f"rename it (recognized are {expected}).",
        path=table.path,
    )


def _one_of(table: RawTable, role: str, option: str, found: Sequence[str]) -> str | None:
    """Return the only column that was found for a role; None if none was."""
    if len(found) > 1:
        ignore = f" (or {option} {NO_COLUMN} to ignore them)" if role in {"splits", "groups"} else ""
        raise DataError(
            f"{table.path} has {len(found)} columns that may hold the {role}: {_listed(found)}. Choose one with "
            f"{option} {shlex.quote(found[0])}{ignore}.",
            path=table.path,
        )
    return found[0] if found else None


def _split_like(table: RawTable, names: Sequence[str]) -> list[str]:
    """Return the columns that hold splits according to their header, or whose values are all names of splits."""
    by_header = _with_headers(names, SPLIT_HEADERS)
    texts = [name for name in names if name in table.texts and name not in by_header and name.strip()]
    return by_header + [name for name in texts if are_splits(table.column(name))]


def _check_unclear(table: RawTable, names: Sequence[str]) -> None:
    """Check that no other column may hold splits or groups."""
    for name in names:
        key = header_key(name)
        if UNCLEAR.fullmatch(key) or (key in FLAG_HEADERS and are_flags(table.column(name))):
            raise _unclear_error(table, name)


def _unclear_error(table: RawTable, name: str) -> DataError:
    column = shlex.quote(name)
    return DataError(
        f"{table.path}: the column {name} may hold splits or groups. Add --split-column {column} to use it for train, "
        f"validation, and test, --group-column {column} to keep images with the same value together, or --split-column "
        f"{NO_COLUMN} --group-column {NO_COLUMN} to ignore it.",
        path=table.path,
    )


def _with_headers(names: Iterable[str], headers: Collection[str]) -> list[str]:
    return [name for name in names if header_key(name) in headers]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name or "(no name)" for name in names[:20]) + (", ..." if len(names) > 20 else "") or "none"
