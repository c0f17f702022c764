"""A table as the readers of CSV, JSON, and Parquet return it: named columns of raw values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from tlcli.storage.urls import Location


def number_row(index: int) -> str:
    """Return `row 3` for the index 2."""
    return f"row {index + 1:,}"


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """The columns of a table; nothing is interpreted yet."""

    path: Location
    names: tuple[str, ...]
    """Names of the columns, as written."""
    column: Callable[[str], Sequence[object]]
    """Returns the values of a column: text, or what JSON and Parquet hold; None for a missing value."""
    texts: frozenset[str] = frozenset()
    """Names of the columns that may hold text."""
    notes: tuple[str, ...] = ()
    """How the file was read, where that is not obvious."""
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The names that the numbers of a column stand for, by column."""
    describe_row: Callable[[int], str] = number_row
    """Returns the position of the row of an index for messages, such as `row 3 (line 4)`."""

    def select(self, rows: Sequence[int]) -> RawTable:
        """Return a table of some rows."""
        return replace(
            self,
            column=functools.cache(lambda name: _at(self.column(name), rows)),
            describe_row=lambda index: self.describe_row(rows[index]),
        )

    def in_folder(self, path: str) -> str:
        """Return a path that is relative to the table's folder, as it is opened; absolute paths stay."""
        return path if path.startswith("/") else self._folder + path

    @cached_property
    def _folder(self) -> str:
        folder = str(self.path.parent)
        return "" if folder == "." else folder.rstrip("/") + "/"


def _at(values: Sequence[object], rows: Sequence[int]) -> list[object]:
    return [values[row] for row in rows]
