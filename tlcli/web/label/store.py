"""The labels of a session: on disk before they count, with a history that can be undone to its beginning."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tlcli.datasets.label_table import GivenLabel, LabelTable
from tlcli.datasets.reviewed_labels import ReviewedLabels
from tlcli.errors import UsageError

MAX_NAME = 200
"""Characters of a class name."""


@dataclass(frozen=True)
class _Change:
    """What an action replaced."""

    labels: dict[str, GivenLabel | None]
    """The previous label of each image that changed, by its key; None if it had none."""
    classes: tuple[str, ...]
    """The classes before."""
    skipped: frozenset[int] = frozenset()
    """Images that were skipped."""
    renamed: tuple[str, str] | None = None
    """The old and new name of a class."""


@dataclass(frozen=True)
class Undone:
    """What an undo changed."""

    images: list[int]
    renamed: tuple[str, str] | None
    """The name of a class that was undone, and the name that it has again."""


class LabelStore:
    """The labels by image, in the order in which they were given, and the classes. Not thread-safe.

    An action that cannot be written raises OSError and changes nothing.

    Args:
        table: The table that holds the labels. Those of images that the session does not show are kept.
        paths: The images of the session; their numbers are the IDs below.
        classes: The classes to begin with; those of the table are added.
    """

    def __init__(self, table: LabelTable | ReviewedLabels, paths: Sequence[str], classes: Sequence[str]) -> None:
        self._table = table
        self._paths = paths
        self._keys = [table.key(path) for path in paths]
        self._ids = {key: number for number, key in enumerate(self._keys)}
        self._labels: dict[str, GivenLabel] = {}
        self._history: list[_Change] = []
        self.classes: list[str] = []
        for name in classes:
            self._add(class_name(name))
        for label in table.read():
            self._remember(table.key(label.path), label)
        self.skipped: set[int] = set()
        """Images to show only when nothing else is left."""
        self.revision = 0
        """Changes with every action."""

    def _remember(self, key: str, label: GivenLabel) -> None:
        """Take a label of the table as given; labels of one moment are undone together."""
        last = self._labels[next(reversed(self._labels))] if self._labels else None
        change = _Change({key: self._labels.pop(key, None)}, tuple(self.classes))
        if last is not None and label.at and last.at == label.at and self._history:
            earlier = self._history.pop()
            change = _Change({**change.labels, **earlier.labels}, earlier.classes)
        if label.label is not None and label.label not in self.classes:
            self.classes.append(label.label)
        self._history.append(change)
        self._labels[key] = label

    @property
    def can_undo(self) -> bool:
        """Whether there is an action to undo."""
        return bool(self._history)

    def given(self) -> dict[int, GivenLabel]:
        """Return the labels of the session's images by ID, in the order in which they were given."""
        return {self._ids[key]: label for key, label in self._labels.items() if key in self._ids}

    def counts(self) -> dict[str, int]:
        """Return the number of images of each class, in the order of the classes."""
        found = Counter(label.label for label in self._labels.values())
        return {name: found[name] for name in self.classes}

    def label(self, labels: Mapping[int, GivenLabel | None], skipped: Collection[int] = ()) -> None:
        """Give images labels, in one action; None removes a label. New labels become classes.

        Labels that images have already are not given again: a request may be repeated if its answer was lost.

        Args:
            labels: The labels by image.
            skipped: Images to skip.

        Raises:
            UsageError: A label is not a valid class name.
            OSError: They could not be written.
            DataError: Another program has changed the table.
        """
        given = {self._keys[image]: label for image, label in labels.items()}
        changed = {key: label for key, label in given.items() if self._differs(key, label)}
        classes = list(self.classes)
        for label in changed.values():
            if label is not None and label.label is not None and class_name(label.label) not in classes:
                classes.append(label.label)
        skips = frozenset(skipped) - self.skipped
        if not changed and not skips:
            return
        kept = {key: changed.get(key, label) for key, label in self._labels.items()}
        added = {key: label for key, label in changed.items() if label is not None and key not in self._labels}
        after = {key: label for key, label in kept.items() if label is not None} | added
        only_new = len(added) == len(changed)
        self._commit(after, _Change({}, tuple(self.classes), skips), classes, appended=added if only_new else None)
        self.skipped = (self.skipped | skips) - labels.keys()

    def _differs(self, key: str, label: GivenLabel | None) -> bool:
        old = self._labels.get(key)
        if old is None or label is None:
            return old is not label
        return old.label != label.label

    def add(self, name: str) -> None:
        """Add a class. Raises UsageError if it exists, or is not a valid name."""
        before = tuple(self.classes)
        self._add(class_name(name))
        self._history.append(_Change({}, before))
        self.revision += 1

    def _add(self, name: str) -> None:
        if name in self.classes:
            raise UsageError(f"there is a class {name!r} already.")
        self.classes.append(name)

    def rename(self, old: str, new: str) -> None:
        """Rename a class in all labels. Raises UsageError if there is no such class, or the new name is taken."""
        new = class_name(new)
        self.require(old)
        if new != old and new in self.classes:
            raise UsageError(f"there is a class {new!r} already. Merge {old!r} into it instead.")
        classes = [new if name == old else name for name in self.classes]
        self._relabel(old, new, classes, renamed=(old, new))

    def merge(self, old: str, into: str) -> None:
        """Give all images of a class another one, and remove it. Raises UsageError if there is no such class."""
        self.require(old)
        self.require(into)
        if old == into:
            raise UsageError(f"{old!r} cannot be merged into itself.")
        self._relabel(old, into, [name for name in self.classes if name != old])

    def require(self, name: str) -> None:
        """Raise UsageError if there is no class of this name."""
        if name not in self.classes:
            raise UsageError(f"there is no class {name!r}; classes are {', '.join(self.classes) or 'not named yet'}.")

    def undo(self) -> Undone:
        """Undo the last action. Raises OSError and DataError; it then remains to be undone."""
        if not self._history:
            return Undone([], None)
        change = self._history[-1]
        before = {key: change.labels.get(key, label) for key, label in self._labels.items()} | change.labels
        labels = {key: label for key, label in before.items() if label is not None}
        if change.labels:
            self._table.replace(labels.values())
        self._history.pop()
        self._labels, self.classes = labels, list(change.classes)
        self.skipped -= change.skipped
        self.revision += 1
        images = [self._ids[key] for key in change.labels if key in self._ids]
        return Undone(images + sorted(change.skipped), change.renamed and change.renamed[::-1])

    def _relabel(self, old: str, new: str, classes: list[str], renamed: tuple[str, str] | None = None) -> None:
        after = {
            key: replace(
                label,
                label=new if label.label == old else label.label,
                proposed=new if label.proposed == old else label.proposed,  # or it would count as a wrong proposal
            )
            for key, label in self._labels.items()
        }
        self._commit(after, _Change({}, tuple(self.classes), renamed=renamed), classes, appended=None)

    def _commit(
        self,
        labels: dict[str, GivenLabel],
        change: _Change,
        classes: list[str],
        *,
        appended: Mapping[str, GivenLabel] | None,
    ) -> None:
        """Write the labels, then take them over. If only some were `appended`, the others are not written again."""
        if appended is None:
            if labels != self._labels:
                self._table.replace(labels.values())
        elif appended:
            self._table.append(appended.values())
        keys = {**self._labels, **labels}
        before = {key: self._labels.get(key) for key in keys if labels.get(key) != self._labels.get(key)}
        self._history.append(replace(change, labels=before))
        self._labels, self.classes = labels, classes
        self.revision += 1


def class_name(text: str) -> str:
    """Return a class name without surrounding spaces. Raises UsageError if it is not a valid one."""
    name = unicodedata.normalize("NFC", text.strip())
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise UsageError(f"{text!r} is not a class name; expected 1 to {MAX_NAME} printable characters.")
    return name


def now() -> str:
    """Return the time in UTC, ISO 8601, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
