"""What to label next, and what is proposed: a learner that is refitted in a thread whenever labels change."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcli.datasets.label_table import GivenLabel
from tlcli.training.active_learning.estimate import Estimate, Gain, assess
from tlcli.training.active_learning.learner import ActiveLearner
from tlcli.web.label.outlook import advice, count_changes, describe_estimate, review_advice

WAIT_SECONDS = 5.0
"""How long a batch waits for the fit on the newest labels."""
WAITING, RANDOM, SIMILAR, CLASS = "waiting", "random", "similar", "class"
"""Why an image is shown, beside the learner's reasons: its features are not computed yet, ..."""
POLL_SECONDS = 0.5
CURVE_POINTS = 200
ASSESSED_AGAIN = 40
"""The accuracy is estimated again when the labels have grown by one in so many, because it takes seconds with many."""
PARTS = 4
"""Parts of the labels so far of which the curve of a continued session is made."""
LABELS_PER_CLASS = 10
"""With this many labels for each class on average, the learner's proposals replace those of the guide."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An image of a batch."""

    image: int
    source: str
    """Why it is shown."""
    proposal: str | None = None
    confidence: float | None = None
    label: str | None = None
    """The label of DATA that is reviewed."""


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What is known about the images from elsewhere: predictions of a run, or the labels of DATA."""

    first: Sequence[int] = ()
    """Images to show first, in this order."""
    reason: str = ""
    """Why they are shown: `review`, `suspect`, or nothing."""
    proposals: dict[int, tuple[str, float | None]] = field(default_factory=dict)
    """Proposed label and its confidence."""
    labels: Mapping[int, str] | None = None
    """The labels to review; None if the images have none."""


@dataclass(frozen=True)
class _Task:
    """What to fit on."""

    number: int
    labels: dict[int, int | None]
    classes: list[str]
    at_random: frozenset[int] = frozenset()
    """Labeled images that were chosen at random."""


class Proposer:
    """Chooses images and proposes labels. Thread-safe. Use it as a context manager, which runs its thread.

    Args:
        learner: The learner.
        order: The images in the order in which they are shown while their features are still missing.
        guide: What is known about the images.
    """

    def __init__(self, learner: ActiveLearner, order: Sequence[int], guide: Guide) -> None:
        self._learner = learner
        self._order = order
        self.guide = guide
        self._lock = threading.RLock()
        """Held while the learner is in use."""
        self._changed = threading.Condition()
        self._task = _Task(0, {}, [])
        self._fitted = _Task(0, {}, [])
        self._labels: Mapping[int, GivenLabel] = {}
        self._names: Mapping[str, str] = {}
        self._failed: set[int] = set()
        self._featurized = 0
        self._estimate: Estimate | None = None
        self._gain: Gain | None = None
        self._assessed = 0
        """Number of labels when the accuracy was estimated last."""
        self._curve: dict[int, Estimate] = {}
        """Estimates by number of labels."""
        self._stopped = False
        self.notice = ""
        """What the page shows while there is nothing to label."""
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="learner", daemon=True)

    def __enter__(self) -> Proposer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(WAIT_SECONDS)

    def add(self, images: NDArray[np.int64], features: NDArray[np.float32], failed: Collection[int] = ()) -> None:
        """Add images whose features, float32 [n, D], are computed, and others that cannot be read."""
        with self._lock:
            self._learner.add(images, features)
            self._featurized += len(images)
            self._failed |= set(failed)
        with self._changed:
            self._learn_again(self._task)

    def learn(
        self, given: Mapping[int, GivenLabel], classes: Sequence[str], names: Mapping[str, str] | None = None
    ) -> None:
        """Fit on these labels soon.

        Args:
            given: The labels by image.
            classes: The classes.
            names: The current names of renamed and merged classes, by their former names, which the guide may propose.
        """
        numbers = {name: number for number, name in enumerate(classes)}
        labels = {image: None if label.label is None else numbers[label.label] for image, label in given.items()}
        at_random = frozenset(image for image, label in given.items() if label.source == RANDOM)
        with self._changed:
            self._labels, self._names = given, names or {}
            self._learn_again(_Task(0, labels, list(classes), at_random))

    def suggest(self, proposals: Mapping[int, tuple[str, float | None]]) -> None:
        """Add proposals to those of the guide."""
        with self._lock:
            self.guide.proposals.update(proposals)

    def _learn_again(self, task: _Task) -> None:
        self._task = replace(task, number=self._task.number + 1)
        self._changed.notify_all()

    def wait(self) -> None:
        """Wait until the newest labels are learned, but not for long."""
        with self._changed:
            self._changed.wait_for(lambda: self._fitted.number == self._task.number or self._stopped, WAIT_SECONDS)
            if self._error is not None:
                raise self._error

    def run_until(self, stop: threading.Event | None) -> None:
        """Wait for `stop`; None waits for a signal. Raise the error of the learner's thread, if it fails."""
        while stop is None or not stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._error is not None, POLL_SECONDS)
                if self._error is not None:
                    raise self._error

    def _run(self) -> None:
        try:
            while self._next():
                task = self._task
                with self._lock:
                    if self.guide.labels is None:
                        self._learner.fit(task.labels, len(task.classes), task.at_random)
                    self._fitted = task
                    training = self._learner.training_data()
                with self._changed:
                    self._changed.notify_all()
                if task is self._task:  # a batch that waits for newer labels goes first
                    self._assess(task, training)
        except Exception as error:  # noqa: BLE001 - raised again by `wait`, in the threads that serve requests
            with self._changed:
                self._error, self._stopped = error, True
                self._changed.notify_all()

    def _assess(self, task: _Task, training: tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]) -> None:
        """Estimate the accuracy now and, in a session that was continued, with the first labels."""
        images, features, labels = training
        grown = len(labels) - self._assessed
        if self.guide.labels is not None or 0 <= grown < len(labels) / ASSESSED_AGAIN:
            return
        self._assessed = len(labels)
        at_random = np.isin(images, list(task.at_random))
        counts = [len(labels)] if self._curve else [len(labels) * part // PARTS for part in range(1, PARTS + 1)]
        found = {count: assess(features[:count], labels[:count], at_random[:count]) for count in counts}
        with self._lock:
            self._estimate, self._gain = found[len(labels)]
            points = {count: estimate for count, (estimate, _) in found.items() if estimate is not None}
            kept = {count: point for count, point in self._curve.items() if count < len(labels)}
            self._curve = dict(sorted((kept | points).items())[-CURVE_POINTS:])

    def _next(self) -> bool:
        """Wait for labels to learn. Return False if the session ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._fitted.number != self._task.number or self._stopped)
            return not self._stopped

    def choose(
        self, size: int, excluded: Collection[int], *, class_name: str | None = None, like: int | None = None
    ) -> list[Shown]:
        """Choose images that have no label, with their proposals.

        Args:
            size: Number of images, at most.
            excluded: Images not to choose.
            class_name: Choose images that are proposed as this class.
            like: Choose the images that are most similar to this one.
        """
        with self._lock:
            closed = self._failed | set(excluded) | self._labels.keys()
            if like is not None:
                chosen = dict.fromkeys(self._learner.like(like, size, closed), SIMILAR)
            elif class_name is not None:
                chosen = dict.fromkeys(self._of_class(class_name, size, closed), CLASS)
            else:
                chosen = dict.fromkeys(islice(_without(self.guide.first, closed), size), self.guide.reason)
                if self.guide.labels is None:
                    chosen |= self._next_choices(size - len(chosen), closed | chosen.keys())
            return self._with_proposals(chosen)

    def _of_class(self, name: str, size: int, closed: Collection[int]) -> list[int]:
        """Return images that are proposed as a class."""
        if self.guide.labels is not None:
            proposed = [image for image in self.guide.first if self._guided(image)[0] == name]
            return list(islice(_without(proposed, closed), size))
        classes = self._fitted.classes
        return self._learner.of_class(classes.index(name), size, closed) if name in classes else []

    def _guided(self, image: int) -> tuple[str | None, float | None]:
        """Return the proposal of the guide, if there is one, with the name that the class has now."""
        name, confidence = self.guide.proposals.get(image, (None, None))
        if name is None or name in self._task.classes:
            return name, confidence
        return self._names.get(name, name), confidence

    def _next_choices(self, size: int, closed: Collection[int]) -> dict[int, str]:
        """Let the learner choose; then images whose features are not computed yet, and copies of labeled ones."""
        chosen: dict[int, str] = {choice.id: choice.source for choice in self._learner.select(size, closed)}
        rest = islice(_without(self._order, closed | chosen.keys()), size - len(chosen))
        return chosen | dict.fromkeys(rest, WAITING)

    def _proposal(self, image: int, number: int, confidence: float) -> tuple[str | None, float | None]:
        """Return the proposal of the learner, or of the guide while there are few labels."""
        names = [name if name in self._task.classes else None for name in self._fitted.classes]
        few = self.guide.labels is not None or len(self._labels) < LABELS_PER_CLASS * len(names)
        name = names[number] if 0 <= number < len(names) else None
        if image in self.guide.proposals and (few or name is None):
            return self._guided(image)
        return (None, None) if name is None else (name, confidence)

    def _with_proposals(self, chosen: Mapping[int, str]) -> list[Shown]:
        images = np.array(list(chosen), np.int64)
        classes, confidences = self._learner.proposals(images)
        in_data = self.guide.labels or {}
        shown = []
        for image, number, confidence in zip(chosen, classes.tolist(), confidences.tolist(), strict=True):
            proposal, probability = self._proposal(image, number, confidence)
            shown.append(
                Shown(
                    image=image,
                    source=chosen[image],
                    proposal=proposal,
                    confidence=probability,
                    label=in_data.get(image),
                )
            )
        return sorted(shown, key=lambda one: (one.proposal is None, one.proposal or "", -(one.confidence or 0)))

    def progress(self, given: Mapping[int, GivenLabel]) -> dict[str, Any]:
        """Return the keys of the state about features, accuracy, and what more labels would bring."""
        with self._lock:
            featurized, failed = self._featurized, len(self._failed)
            estimate, gain = self._estimate, self._gain
            curve = [{"labelled": count, **describe_estimate(point)} for count, point in self._curve.items()]
        review = None if self.guide.labels is None else count_changes(given, self.guide.labels)
        return {
            "featurized": featurized,
            "failed": failed,
            "estimate": None if estimate is None else describe_estimate(estimate),
            "curve": curve,
            "gain": None if gain is None else {"labels": gain.labels, "accuracy": round(gain.accuracy, 4)},
            "review": review,
            "advice": advice(estimate, gain) if review is None else review_advice(review),
            "notice": self.notice,
        }


def _without(images: Sequence[int], closed: Collection[int]) -> Iterator[int]:
    return (image for image in images if image not in closed)
