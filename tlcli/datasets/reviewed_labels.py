"""The corrections table that `tlcli label` writes while labels are reviewed; `--corrections` applies it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from tlcli.datasets.label_table import GivenLabel, name_in_table, path_key
from tlcli.datasets.tables.correction_table import CORRECTION_COLUMNS
from tlcli.storage.appended_table import AppendedTable, Row
from tlcli.storage.files import from_portable_name
from tlcli.storage.urls import is_url


class ReviewedLabels:
    """Reads and writes a corrections table: what a person decided about each image; a label that was right stays.

    Has the methods of `LabelTable`.

    Args:
        path: The CSV file, which need not exist.
        described: Returns the digest, in hexadecimal, and the label in DATA of an image by its key.

    Raises:
        DataError: The file is not such a table.
    """

    def __init__(self, path: Path, described: Callable[[str], tuple[str, str]]) -> None:
        self.path = path
        self._folder = path.absolute().parent
        self._described = described
        self._table = AppendedTable(path, CORRECTION_COLUMNS)
        self._digests = {self.key(self._located(row[0])): (row[1], row[2]) for row in self._table.rows}

    def read(self) -> list[GivenLabel]:
        """Return the decisions that the table had when it was opened."""
        return [
            GivenLabel(path=self._located(path), label=new or None, source="", at="")
            for path, _, _, new in self._table.rows
        ]

    def append(self, labels: Iterable[GivenLabel]) -> None:
        """Append decisions; they are on disk on return. Raises OSError, and DataError if another program changed it."""
        self._table.append([self._to_row(label) for label in labels])

    def replace(self, labels: Iterable[GivenLabel]) -> None:
        """Replace all decisions; they are on disk on return. Raises OSError; the old ones then remain."""
        self._table.replace([self._to_row(label) for label in labels])

    def key(self, path: str) -> str:
        """Return what identifies an image in the table, however its path was typed."""
        return path_key(path)

    def _located(self, written: str) -> str:
        path = from_portable_name(written)
        return path if is_url(path) else os.path.join(self._folder, path)  # noqa: PTH118 - keeps an absolute path

    def _to_row(self, label: GivenLabel) -> Row:
        key = self.key(label.path)
        if key not in self._digests:
            self._digests[key] = self._described(key)
        digest, old = self._digests[key]
        return name_in_table(key, self._folder), digest, old, label.label or ""
