"""The labels of all sessions of a table: on disk before they count, with a history that undo goes back step by step."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tlcli.datasets.label_table import GivenLabel
from tlcli.errors import UsageError
from tlcli.web.label.history import Change, History, HistoryFile, Table

MAX_NAME = 200
"""Characters of a class name."""


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
        classes: The classes to begin with; those of the table and its history are added.
    """

    def __init__(self, table: Table, paths: Sequence[str], classes: Sequence[str]) -> None:
        self._table = table
        self._paths = paths
        self._keys = [table.key(path) for path in paths]
        self._ids = {key: number for number, key in enumerate(self._keys)}
        self._file = HistoryFile(table)
        labels = table.read()
        history, known = self._file.read(labels)
        self._labels = {table.key(label.path): label for label in labels[:known]}
        self._history: list[Change] = list(history.changes)
        self._in_file = frozenset(history.classes)
        """The classes that are in the file of the history."""
        self.names: dict[str, str] = dict(history.names)
        """The current names of classes that were renamed or merged, by their former names."""
        self.classes: list[str] = list(history.classes)
        self._begin_with([class_name(name) for name in classes])
        for label in labels[known:]:
            self._remember(table.key(label.path), label, after=len(history.changes))
        self.skipped: set[int] = set()
        """Images to show only when nothing else is left."""
        self.revision = 0
        """Changes with every action."""

    def _begin_with(self, classes: Sequence[str]) -> None:
        """Add classes that are named on the command line, unless an earlier session renamed them; undo keeps them."""
        if twice := next((name for name in classes if classes.count(name) > 1), None):
            raise UsageError(f"the class {twice!r} is given twice.")
        more = [name for name in dict.fromkeys(map(self.current, classes)) if name not in self.classes]
        self.classes += more
        self._history = [replace(change, classes=(*change.classes, *more)) for change in self._history]

    def _remember(self, key: str, label: GivenLabel, *, after: int) -> None:
        """Take a label of the table as given; labels of one moment are undone together, `after` the steps before."""
        last = self._labels[next(reversed(self._labels))] if self._labels else None
        change = self._change(labels={key: self._labels.pop(key, None)})
        if last is not None and label.at and last.at == label.at and len(self._history) > after:
            earlier = self._history.pop()
            change = replace(earlier, labels={**change.labels, **earlier.labels})
        if label.label is not None and label.label not in self.classes:
            self.classes.append(label.label)
        self._history.append(change)
        self._labels[key] = label

    def _change(self, **replaced: Any) -> Change:  # noqa: ANN401 - fields of `Change`
        return Change(classes=tuple(self.classes), names=self.names, **replaced)

    def current(self, name: str) -> str:
        """Return the name that a class has now, which may have been renamed or merged."""
        return name if name in self.classes else self.names.get(name, name)

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
        self._commit(after, self._change(skipped=skips), classes, appended=added if only_new else None)
        self.skipped = (self.skipped | skips) - labels.keys()

    def _differs(self, key: str, label: GivenLabel | None) -> bool:
        old = self._labels.get(key)
        if old is None or label is None:
            return old is not label
        return old.label != label.label

    def add(self, name: str) -> None:
        """Add a class. Raises UsageError if it exists, or is not a valid name, and OSError."""
        name = class_name(name)
        if name in self.classes:
            raise UsageError(f"there is a class {name!r} already.")
        self._commit(self._labels, self._change(), [*self.classes, name], appended={})

    def rename(self, old: str, new: str) -> None:
        """Rename a class in all labels. Raises UsageError if there is no such class, or the new name is taken."""
        new = class_name(new)
        self.require(old)
        if new != old and new in self.classes:
            raise UsageError(f"there is a class {new!r} already. Merge {old!r} into it instead.")
        if new != old:
            self._relabel(old, new, [new if name == old else name for name in self.classes], renamed=(old, new))

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
        before = {**self._labels, **change.labels}
        labels = {key: label for key, label in before.items() if label is not None}
        steps = len(self._history) - 1
        if change.labels or list(change.classes) != self.classes:
            history = History(changes=tuple(self._history), classes=tuple(self.classes), names=self.names)
            self._keep(history, labels, steps)
        if change.labels:
            self._table.replace(labels.values())
        self._history.pop()
        self._labels, self.classes, self.names = labels, list(change.classes), dict(change.names)
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
        names = {former: new if name == old else name for former, name in self.names.items()} | {old: new}
        names.pop(new, None)
        self._commit(after, self._change(renamed=renamed), classes, appended=None, names=names)

    def _commit(
        self,
        labels: dict[str, GivenLabel],
        change: Change,
        classes: list[str],
        *,
        appended: Mapping[str, GivenLabel] | None,
        names: dict[str, str] | None = None,
    ) -> None:
        """Write the labels, then take them over. If only some were `appended`, the others are not written again."""
        keys = {**self._labels, **labels}
        before = {key: self._labels.get(key) for key in keys if labels.get(key) != self._labels.get(key)}
        history = History(
            changes=(*self._history, replace(change, labels=before)),
            classes=tuple(classes),
            names=self.names if names is None else names,
        )
        if appended is None or set(classes) - self._in_file - {label.label for label in labels.values()}:
            self._keep(history, labels, len(history.changes))
        if appended:
            self._table.append(appended.values())
        elif labels != self._labels:
            self._table.replace(labels.values())
        self._history = list(history.changes)
        self._labels, self.classes, self.names = labels, classes, dict(history.names)
        self.revision += 1

    def _keep(self, history: History, labels: Mapping[str, GivenLabel], changes: int) -> None:
        """Write the file of the history before the table gets these labels, by so many of the changes."""
        before = self._labels.values(), len(self._history)
        self._file.write(history, [(labels.values(), changes), before])
        self._in_file = frozenset(history.first(changes).classes)


def class_name(text: str) -> str:
    """Return a class name without surrounding spaces. Raises UsageError if it is not a valid one."""
    name = unicodedata.normalize("NFC", text.strip())
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise UsageError(f"{text!r} is not a class name; expected 1 to {MAX_NAME} printable characters.")
    return name


def now() -> str:
    """Return the time in UTC, ISO 8601, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
