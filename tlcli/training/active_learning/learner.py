"""Labeling with the help of the network: what to label next, and what the network proposes (active learning).

Shapes: N images, n new images, M labeled images, D features, P directions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tlcli.training.active_learning.coverage import diverse, representatives
from tlcli.training.active_learning.feature_pool import FeaturePool
from tlcli.training.active_learning.near_copies import BLOCK, NearCopies, least_cosines
from tlcli.training.active_learning.proposals import NO_PROPOSALS, propose

Source = Literal["cluster", "uncertain", "random"]
Rows = NDArray[np.int64]

RANDOM_EVERY = 8
"""One of so many images is chosen at random, once the network proposes labels."""
CANDIDATES = 2048
"""Images that representatives are chosen from, at most."""
UNRELATED = np.float32(0.4)
"""Cosine up to which an image does not represent another one."""
UNCERTAIN = 10
"""Uncertain images to select from, per image to select."""
NONE = -1


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An image to label next."""

    id: int
    source: Source
    """Why it was chosen: it stands for a cluster of images, the network is uncertain, or at random. Only random images
    tell how accurate the proposals are."""


class ActiveLearner:
    """Chooses the images to label, and proposes their labels.

    Calls with the same arguments in the same order give the same results. Not thread-safe: callers hold a lock.

    Args:
        dimensions: Number of features D.
        seed: Decides which images are the random ones.
    """

    def __init__(self, dimensions: int, *, seed: int = 0) -> None:
        self._pool = FeaturePool(dimensions)
        self._copies = NearCopies()
        self._seed = seed
        self._labels: dict[int, int | None] = {}
        self._classes = 0
        self._proposals = NO_PROPOSALS
        """Of the images that had been added when the model was fitted."""
        self._margins = NO_PROPOSALS.margins
        """The margins of a model that was fitted without the images chosen at random, which images are chosen by."""

    def add(self, ids: NDArray[np.int64], features: NDArray[np.float32]) -> None:
        """Add images whose features have become available. They take part from the next `fit` on.

        Images should be added in random order, so that the first ones are like the others. From each call on that makes
        them half as many again as at the last time, all are projected again.

        Args:
            ids: int64 [n], from 0 to the number of images; those that were added before are ignored.
            features: float32 [n, D], finite.
        """
        self._pool.add(ids, features)

    def fit(self, labels: Mapping[int, int | None], classes: int, at_random: Collection[int] = ()) -> None:
        """Fit the model on all labels so far, and propose a class for every image that has been added.

        There is no model before two classes have labels; images of none of the classes count as one.

        The labels of random images do not influence which others are chosen. Otherwise, images like them would not be
        chosen, as the model is certain about these, and heads fitted without a random image would miss the images that
        would have been chosen in its place: their accuracy would be below that of the proposals.

        Args:
            labels: The class of each labeled image, by id; None for none of the classes. The label of an image
                without features counts once these have been added.
            classes: Number of classes.
            at_random: Ids of the labeled images that were chosen at random (`Choice.source`).
        """
        self._labels, self._classes = dict(labels), classes
        rows, targets = self._labeled()
        originals, features = self._originals(rows), self._pool.features
        self._proposals = propose(features, rows, targets, originals=originals)
        others = ~np.isin(self._pool.ids[rows], np.fromiter(at_random, np.int64, len(at_random)))
        blind = (
            self._proposals if others.all() else propose(features, rows[others], targets[others], originals=originals)
        )
        self._margins = blind.margins

    def proposals(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the proposed classes, and how confident the network is.

        A near copy of a labeled image gets its label.

        Args:
            ids: int64 [n], of any images.

        Returns:
            Class indices int64 [n], and confidences float32 [n]. A class of -1 with a confidence above 0 means that the
            image is proposed to be of none of the classes; with a confidence of 0, nothing is proposed.
        """
        rows = self._pool.rows(ids)
        known = (rows >= 0) & (rows < len(self._proposals))
        classes, confidences = np.full(len(ids), NONE), np.zeros(len(ids), np.float32)
        classes[known] = self._proposals.classes[rows[known]]
        confidences[known] = self._proposals.confidences[rows[known]]
        classes[classes == self._classes] = NONE
        return classes, confidences

    def select(self, size: int, excluded: Collection[int] = ()) -> list[Choice]:
        """Choose the images to label next: representatives of clusters first, then mostly uncertain ones.

        Args:
            size: Number of images.
            excluded: Ids of images not to choose, because they were skipped or are shown elsewhere.

        Returns:
            `size` images, fewer if there are no others. None is labeled, or a near copy of a labeled image or
            of one that was chosen for the same reason. With fewer than two classes labeled, all are "cluster"; else
            one in `RANDOM_EVERY` is "random".
        """
        labeled, _ = self._labeled()
        free = self._free(labeled, excluded)
        free = free[self._originals(labeled)[free] < 0]
        if not self._proposals.fitted:
            return self._choices(self._clusters(free, labeled, size), "cluster")
        free = free[free < len(self._proposals)]
        turns = (len(self._labels) + np.arange(size)) % RANDOM_EVERY == RANDOM_EVERY - 1
        random = self._random(free, int(turns.sum()))
        uncertain = self._uncertain(free[~np.isin(free, random)], size - len(random))
        choices = iter(self._choices(uncertain, "uncertain")), iter(self._choices(random, "random"))
        mixed = [next(choices[int(turn)], None) for turn in turns]
        return [choice for choice in mixed if choice] + list(choices[0])

    def like(self, id: int, size: int, excluded: Collection[int] = ()) -> list[int]:  # noqa: A002
        """Return the unlabeled images that are most similar to an image, the most similar first."""
        (row,) = self._pool.rows(np.array([id]))
        if row < 0:
            return []
        rows = self._free(self._labeled()[0], {*excluded, id})
        cosines = self._pool.directions[rows] @ self._pool.directions[row]
        return self._ids(rows[np.argsort(-cosines, kind="stable")[:size]])

    def of_class(self, index: int, size: int, excluded: Collection[int] = ()) -> list[int]:
        """Return unlabeled images that are proposed as a class, to accept them together.

        They are the most confident ones, in ascending order of confidence: those to look at come first.
        """
        rows = self._free(self._labeled()[0], excluded)
        rows = rows[rows < len(self._proposals)]
        rows = rows[(self._proposals.classes[rows] == index) & (self._proposals.confidences[rows] > 0)]
        order = np.argsort(-self._proposals.confidences[rows], kind="stable")[:size]
        return self._ids(rows[order[::-1]])

    def training_data(self) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        """Return ids int64 [M], features float32 [M, D], and classes int64 [M] of labeled images, without `None`."""
        rows, targets = self._labeled()
        known = targets < self._classes
        return self._pool.ids[rows[known]], self._pool.features[rows[known]], targets[known]

    def _labeled(self) -> tuple[Rows, NDArray[np.int64]]:
        """Return the rows of the labeled images, and their classes: int64 [M], the number of classes for None."""
        rows = self._pool.rows(np.fromiter(self._labels, np.int64, len(self._labels)))
        targets = np.array([self._classes if label is None else label for label in self._labels.values()], np.int64)
        return rows[rows >= 0], targets[rows >= 0]

    def _originals(self, labeled: Rows) -> Rows:
        return self._copies.originals(self._pool.directions, labeled, self._pool.version)

    def _free(self, labeled: Rows, excluded: Collection[int]) -> Rows:
        """Return the rows of the images that are neither labeled nor excluded."""
        free = np.ones(self._pool.count, bool)
        rows = self._pool.rows(np.fromiter(excluded, np.int64, len(excluded)))
        free[rows[rows >= 0]] = False
        free[labeled] = False
        return np.flatnonzero(free)

    def _clusters(self, free: Rows, labeled: Rows, size: int) -> Rows:
        """Choose rows that represent the free ones, or a random part of them, and are unlike the labeled ones."""
        free = self._shuffled(free)[:CANDIDATES]
        directions = self._pool.directions
        covered = (directions[free] @ directions[labeled].T).max(axis=1, initial=UNRELATED)
        return free[representatives(directions[free], covered, size)]

    def _uncertain(self, free: Rows, size: int) -> Rows:
        """Choose rows that the model is uncertain about, and that are unlike each other."""
        margins = self._margins[free]
        smallest = np.argsort(margins, kind="stable")[: UNCERTAIN * size]
        rows = free[smallest]
        return rows[diverse(self._pool.directions[rows], 1.001 - margins[smallest], size)]

    def _shuffled(self, rows: Rows) -> Rows:
        """Return rows in an order that is random, but always the same for the same images."""
        ids = self._pool.ids
        priorities = np.random.default_rng(self._seed).random(int(ids.max(initial=0)) + 1)
        return rows[np.argsort(priorities[ids[rows]], kind="stable")]

    def _random(self, rows: Rows, size: int) -> Rows:
        """Choose rows at random, uniformly among images that are not copies of each other.

        The order of all images is random and fixed, so it does not depend on which other images were chosen. Of several
        near copies, only the one with the lowest row can be chosen; otherwise, many copies would be chosen more often.
        """
        directions, order = self._pool.directions, self._shuffled(rows)
        chosen: list[int] = []
        for start in range(0, len(order), BLOCK):
            some = order[start : start + BLOCK]
            cosines = directions[some] @ directions.T
            first = (cosines >= least_cosines(cosines)[:, None]).argmax(axis=1)
            chosen += some[first == some].tolist()
            if len(chosen) >= size:
                break
        return np.array(chosen[:size], np.int64)

    def _choices(self, rows: Rows, source: Source) -> list[Choice]:
        return [Choice(id=number, source=source) for number in self._ids(rows)]

    def _ids(self, rows: Rows) -> list[int]:
        found: list[int] = self._pool.ids[rows].tolist()
        return found
