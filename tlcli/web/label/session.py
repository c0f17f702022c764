"""A labeling session: what the HTTP interface of `tlcli label` does, without HTTP. Thread-safe."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tlcli.datasets.label_table import GivenLabel
from tlcli.errors import UsageError
from tlcli.storage.files import portable_name
from tlcli.web.label.proposer import Proposer, Shown
from tlcli.web.label.reservations import Reservations
from tlcli.web.label.store import LabelStore, class_name, now

MAX_BATCH = 500
"""Images of one batch, at most."""
REMEMBERED = 100
"""Latest requests whose repetition is recognized."""
CHOSEN = "chosen"
"""`source` of an image that was labeled without having been in a batch."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a person said about an image: a label, or one of the other fields."""

    image: int
    label: str | None = None
    """None means none of the classes."""
    skip: bool = False
    """Show it again only when nothing else is left."""
    remove: bool = False
    """Remove its label."""


class Session:
    """The state of a session.

    Args:
        paths: The images; their numbers are their IDs.
        store: The labels.
        proposer: What to label next.
        about: Keys of the state that do not change: `source`, `out`, `mode`.
    """

    def __init__(self, paths: Sequence[str], store: LabelStore, proposer: Proposer, about: Mapping[str, str]) -> None:
        self.paths = paths
        self._store = store
        self._proposer = proposer
        self._about = dict(about)
        self._lock = threading.RLock()
        self._reservations = Reservations()
        self._shown: dict[int, Shown] = {}
        self._answers: dict[str, dict[str, Any]] = {}
        """The answers to the latest requests that have a key."""
        self._learn()

    def once(self, key: str | None, action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do an action, unless it was done: a client repeats a request, with its key, if the answer was lost."""
        with self._lock:
            if key is not None and key in self._answers:
                return {**self._answers[key], **self.state()}
            answer = action()
            if key is not None:
                self._answers[key] = answer
                while len(self._answers) > REMEMBERED:
                    del self._answers[next(iter(self._answers))]
            return answer

    def state(self) -> dict[str, Any]:
        """Return the object of `GET /api/state`."""
        with self._lock:
            given = self._store.given()
            none = sum(label.label is None for label in given.values())
            return {
                **self._about,
                "images": len(self.paths),
                "labelled": len(given),
                "none": none,
                "revision": self._store.revision,
                "classes": [{"name": name, "count": count} for name, count in self._store.counts().items()],
                "undo": {"possible": self._store.can_undo},
                **self._proposer.progress(given),
            }

    def batch(
        self, size: int, *, class_name: str | None = None, like: int | None = None, tab: str | None = None
    ) -> dict[str, Any]:
        """Return the object of `GET /api/batch`.

        Args:
            size: Number of images, at most.
            class_name: Return unlabeled images that are proposed as this class.
            like: Return the unlabeled images that are most similar to this one.
            tab: Name of the browser tab; other tabs do not get the images that it gets.

        Raises:
            UsageError: The size, class, or image does not exist.
        """
        if not 1 <= size <= MAX_BATCH:
            raise UsageError(f"size is {size}; expected 1 to {MAX_BATCH}.")
        if like is not None:
            self.require(like)
        self._proposer.wait()
        with self._lock:
            if class_name is not None:
                self._store.require(class_name)
            others = self._reservations.of_others(tab or "")
            reserved = self._reservations.of(tab) if tab else set()
            skipped = self._store.skipped
            found: dict[int, Shown] = {}
            # What was shown already, or skipped, comes only when nothing else is left; what others see, last.
            for excluded in (others | reserved | skipped, others | skipped, others, set()):
                if len(found) < size and (excluded or not found):
                    more = self._proposer.choose(
                        size - len(found), excluded | found.keys(), class_name=class_name, like=like
                    )
                    found |= {shown.image: shown for shown in more}
            self._shown |= found
            if tab:
                self._reservations.reserve(tab, found)
            return {"images": [self._described(shown) for shown in found.values()]}

    def _described(self, shown: Shown) -> dict[str, Any]:
        return {
            "id": shown.image,
            "path": portable_name(self.paths[shown.image]),
            "proposal": shown.proposal,
            "confidence": None if shown.confidence is None else round(shown.confidence, 4),
            "label": shown.label,
            "reason": shown.source,
        }

    def labels(self, *, offset: int, limit: int, class_name: str | None = None) -> dict[str, Any]:
        """Return the object of `GET /api/labels`: what was labeled, the newest first."""
        with self._lock:
            given = reversed(self._store.given().items())
            chosen = [(image, label) for image, label in given if class_name is None or label.label == class_name]
        return {
            "total": len(chosen),
            "images": [
                {"id": image, "path": portable_name(self.paths[image]), "label": label.label, "at": label.at}
                for image, label in chosen[offset : offset + limit]
            ],
        }

    def answer(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """Take answers, and return the state once they are on disk.

        Raises:
            UsageError: An image does not exist, or a label is not a valid class name; nothing was recorded.
            OSError: They could not be written; nothing was recorded.
        """
        for answer in answers:
            self.require(answer.image)
        with self._lock:
            at = now()
            given = self._store.given()
            labels = {answer.image: self._label(answer, at, given) for answer in answers if not answer.skip}
            revision = self._store.revision
            self._store.label(labels, [answer.image for answer in answers if answer.skip])
            if self._store.revision != revision:
                self._learn()
            self._reservations.release(answer.image for answer in answers)
            return self.state()

    def _label(self, answer: Answer, at: str, given: Mapping[int, GivenLabel]) -> GivenLabel | None:
        if answer.remove:
            return None
        label = None if answer.label is None else class_name(answer.label)
        shown, before = self._shown.get(answer.image), given.get(answer.image)
        if shown is None and before is not None:  # an image chosen at random remains one if its label is corrected
            return replace(before, label=label, at=at)
        return GivenLabel(
            path=self.paths[answer.image],
            label=label,
            source=CHOSEN if shown is None else shown.source,
            at=at,
            proposed=None if shown is None else shown.proposal,
            confidence=None if shown is None else shown.confidence,
        )

    def undo(self) -> dict[str, Any]:
        """Undo the last action. Return the state, and `undone`: the images that it had changed."""
        with self._lock:
            undone = self._store.undo()
            self._reservations.release(undone.images)
            if undone.renamed is not None:
                self._rename_proposals(*undone.renamed)
            self._learn()
            return {**self.state(), "undone": undone.images}

    def add_class(self, name: str) -> dict[str, Any]:
        """Add a class. Raises UsageError."""
        with self._lock:
            self._store.add(name)
            return self.state()

    def rename_class(self, old: str, new: str) -> dict[str, Any]:
        """Rename a class in all labels. Raises UsageError and OSError."""
        with self._lock:
            self._store.rename(old, new)
            self._rename_proposals(old, class_name(new))
            self._learn()
            return self.state()

    def merge_classes(self, old: str, into: str) -> dict[str, Any]:
        """Give all images of a class another one, and remove it. Raises UsageError and OSError."""
        with self._lock:
            self._store.merge(old, into)
            self._rename_proposals(old, into)
            self._learn()
            return self.state()

    def _rename_proposals(self, old: str, new: str) -> None:
        """Rename a class in proposals that were shown, or they would count as wrong."""
        self._shown = {
            image: replace(shown, proposal=new) if shown.proposal == old else shown
            for image, shown in self._shown.items()
        }

    def require(self, image: int) -> None:
        """Raise UsageError if there is no such image."""
        if not 0 <= image < len(self.paths):
            raise UsageError(f"there is no image {image}; images are numbered from 0 to {len(self.paths) - 1}.")

    def _learn(self) -> None:
        self._proposer.learn(self._store.given(), self._store.classes, self._store.names)
