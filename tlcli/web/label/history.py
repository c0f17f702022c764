"""What the table of labels does not hold: the steps that undo goes back, renamed classes, and classes without an image.

They are in a JSON file beside the table, so that they outlive the session. The table decides: steps that do not end in
the table that is found are ignored, and so is a file that is damaged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tlcli.datasets.label_table import GivenLabel, LabelTable
from tlcli.datasets.reviewed_labels import ReviewedLabels
from tlcli.storage.publish import atomic_write

FORMAT = 1
Table = LabelTable | ReviewedLabels


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a step replaced."""

    labels: Mapping[str, GivenLabel | None] = field(default_factory=dict)
    """The previous label of each image that changed, by its key; None if it had none."""
    classes: tuple[str, ...]
    """The classes before."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The current names of classes that had been renamed or merged before, by their former names."""
    skipped: frozenset[int] = frozenset()
    """Images that were skipped; only for this session."""
    renamed: tuple[str, str] | None = None
    """The old and new name of a class."""


@dataclass(frozen=True, kw_only=True)
class History:
    """The steps so far, and what they led to beside the labels."""

    changes: tuple[Change, ...] = ()
    """The oldest first."""
    classes: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    def first(self, count: int) -> History:
        """Return the history up to a step."""
        if count >= len(self.changes):
            return self
        change = self.changes[count]
        return History(changes=self.changes[:count], classes=change.classes, names=change.names)

    def followed(self) -> Iterator[tuple[Change, Change]]:
        """Return each step with the next one; a step without labels stands for the present."""
        return pairwise([*self.changes, Change(classes=self.classes, names=self.names)])

    def without_skips(self) -> History:
        """Return the history without the steps that only skipped images."""
        kept = (
            change
            for change, after in self.followed()
            if change.labels or (change.classes, change.names) != (after.classes, after.names)
        )
        return replace(self, changes=tuple(kept))


class HistoryFile:
    """Reads and writes the file.

    Args:
        table: The table of labels that it belongs to.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._path = history_path(table.path)

    def read(self, labels: Sequence[GivenLabel]) -> tuple[History, int]:
        """Return the history, and the number of labels that it ends with; those after them were given later.

        Args:
            labels: The labels that the table holds.

        Returns:
            If the file does not belong to the table: its classes only, and 0.
        """
        try:
            found = json.loads(self._path.read_bytes())
            if found["format"] != FORMAT:
                return History(), 0
            history = self._decoded(found)
            for state in found["states"]:
                count = int(state["labels"])
                if count <= len(labels) and state["digest"] == self._digest(labels[:count]):
                    return history.first(int(state["changes"])).without_skips(), count
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # missing or damaged
            return History(), 0
        return History(classes=history.classes, names=history.names), 0

    def write(self, history: History, states: Iterable[tuple[Collection[GivenLabel], int]]) -> None:
        """Replace the file; it is on disk on return.

        It is written before the table: if the process is killed in between, the file fits the old table as well.

        Args:
            history: The steps.
            states: Labels that the table may hold, and the number of steps that lead there; the likelier ones first.

        Raises:
            OSError: It could not be written; the old file remains.
        """
        content = {
            "format": FORMAT,
            "classes": history.classes,
            "names": dict(history.names),
            "states": [
                {"labels": len(labels), "digest": self._digest(labels), "changes": changes}
                for labels, changes in states
            ],
            "changes": [self._encoded(change, after) for change, after in history.followed()],
        }
        with atomic_write(self._path) as file:
            file.write(json.dumps(content, separators=(",", ":")).encode())

    def _digest(self, labels: Iterable[GivenLabel]) -> str:
        rows = [self._table.to_row(label) for label in labels]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def _encoded(self, change: Change, after: Change) -> dict[str, Any]:
        """Return a step as JSON, without what it did not change."""
        found: dict[str, Any] = {}
        if change.labels:
            rows = ((key, label and self._table.to_row(label)) for key, label in change.labels.items())
            found["labels"] = [[self._table.name(key), row] for key, row in rows]
        if change.classes != after.classes:
            found["classes"] = change.classes
        if change.names != after.names:
            found["names"] = dict(change.names)
        if change.renamed is not None:
            found["renamed"] = change.renamed
        return found

    def _decoded(self, found: Mapping[str, Any]) -> History:
        classes, names = tuple(map(str, found["classes"])), dict(found["names"])
        history, changes = History(classes=classes, names=names), []
        for step in reversed(found["changes"]):
            classes, names = tuple(step.get("classes", classes)), dict(step.get("names", names))
            labels = {
                self._table.key_of(name): None if row is None else self._table.to_label(tuple(row))
                for name, row in step.get("labels", ())
            }
            renamed = tuple(step["renamed"]) if "renamed" in step else None
            changes.append(Change(labels=labels, classes=classes, names=names, renamed=renamed))
        return History(changes=tuple(reversed(changes)), classes=history.classes, names=history.names)


def history_path(table: Path) -> Path:
    """Return where the history of a table is."""
    return table.with_name(f"{table.name}.history")
