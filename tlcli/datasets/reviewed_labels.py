"""The corrections table that `tlcli label` writes while labels are reviewed; `--corrections` applies it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tlcli.datasets.label_table import GivenLabel, located, name_in_table, path_key
from tlcli.datasets.tables.correction_table import CORRECTION_COLUMNS
from tlcli.storage.appended_table import AppendedTable, Row


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
        self._digests: dict[str, tuple[str, str]] = {}

    def read(self) -> list[GivenLabel]:
        """Return the decisions that the table had when it was opened."""
        return [self.to_label(row) for row in self._table.rows]

    def append(self, labels: Iterable[GivenLabel]) -> None:
        """Append decisions; they are on disk on return. Raises OSError, and DataError if another program changed it."""
        self._table.append([self.to_row(label) for label in labels])

    def replace(self, labels: Iterable[GivenLabel]) -> None:
        """Replace all decisions; they are on disk on return. Raises OSError; the old ones then remain."""
        self._table.replace([self.to_row(label) for label in labels])

    def key(self, path: str) -> str:
        """Return what identifies an image in the table, however its path was typed."""
        return path_key(path)

    def name(self, key: str) -> str:
        """Return how the table names the image with this key."""
        return name_in_table(key, self._folder)

    def key_of(self, name: str) -> str:
        """Return the key of the image that the table names so."""
        return self.key(located(name, self._folder))

    def to_row(self, label: GivenLabel) -> Row:
        """Return the row of a decision."""
        key = self.key(label.path)
        if key not in self._digests:
            self._digests[key] = self._described(key)
        digest, old = self._digests[key]
        return self.name(key), digest, old, label.label or ""

    def to_label(self, row: Row) -> GivenLabel:
        """Return the decision of a row, whose digest is kept for the image."""
        name, digest, old, new = row
        self._digests.setdefault(self.key_of(name), (digest, old))
        return GivenLabel(path=located(name, self._folder), label=new or None, source="", at="")
