"""Fit what tells known from unknown images: a bounded bank of training features, and scores of known images.

Shapes: N images, D features, k classes, M vectors in the bank, P directions, S known images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from tlcli import processes
from tlcli.features.extractor import FeatureExtractor
from tlcli.features.principal_directions import principal_directions
from tlcli.inference.novelty import FeatureBank, Floats, Novelty, Scores, combine, embed, energies
from tlcli.training.usable_images import UsableImages

BANK = 10_000
"""Most vectors in the bank, and most known images."""
DIRECTIONS = 128
"""Principal directions that the bank keeps of the features of many images."""
IMAGES_PER_DIRECTION = 16
"""Images from which on features are projected: directions fitted to fewer fit these images better than other ones."""
CENTERED = 0.5
"""Share of the mean feature that is subtracted. Cosines of plain features recognize images of another kind best, those
of centered ones images of a missing class; see benchmarks/unknown.py."""


@dataclass(frozen=True, kw_only=True)
class NoveltyRows:
    """Which images novelty is fitted on, as rows of `UsableImages`."""

    bank: list[int]
    """M training images, of rare classes as many as of frequent ones."""
    known: list[int]
    """S images that were held out from the network, or from the heads of their folds."""
    logits: npt.NDArray[np.float32]
    """[S, k], of the known images, by the network or the heads that they were held out from."""
    groups: dict[int, int]
    """The number of the group of each of them."""

    @property
    def all(self) -> list[int]:
        """All of these rows, each once."""
        return sorted({*self.bank, *self.known})

    def only(self, bank: Container[int], known: Container[int]) -> NoveltyRows:
        """Return the rows of the bank that are in `bank`, and the known ones that are in `known`."""
        kept = [number for number, row in enumerate(self.known) if row in known]
        return replace(
            self,
            bank=[row for row in self.bank if row in bank],
            known=[self.known[number] for number in kept],
            logits=self.logits[kept],
        )


@dataclass(frozen=True, kw_only=True)
class FittedNovelty:
    """What a run stores to tell unknown images, and the known images that it was fitted on."""

    novelty: Novelty
    rows: list[int]
    """S known images, as rows of `UsableImages`."""
    scores: Scores
    """[S], theirs."""


def fit_head_novelty(
    extractor: FeatureExtractor,
    images: UsableImages,
    held_out: Sequence[int],
    logits: npt.NDArray[np.float32],
    *,
    refitted: bool,
) -> FittedNovelty | None:
    """Fit the novelty of a run whose features are all stored, in the first process; see `novelty_rows`."""

    def fit() -> FittedNovelty | None:
        rows = novelty_rows(images, held_out, logits, refitted=refitted)
        return fit_novelty(rows, extractor.plain.gather(images.digests(rows.all)))

    return processes.from_first(fit)


def novelty_rows(
    images: UsableImages, held_out: Sequence[int], logits: npt.NDArray[np.float32], *, refitted: bool
) -> NoveltyRows:
    """Choose at most `BANK` training images and held-out images, by their digests.

    Near copies of training images in DATA's own validation images are left out of the known images.

    Args:
        images: The usable images.
        held_out: Rows of the N held-out images, with out-of-fold evaluation the training images.
        logits: float32 [N, k], of the held-out images.
        refitted: Whether the final network is trained on the held-out images as well.
    """
    train = (images.all_in_train() if refitted else images).rows("train")
    digests = images.splits.digests
    candidates = [number for number, row in enumerate(held_out) if row not in images.near_copies]
    chosen = sorted(candidates, key=lambda number: digests[held_out[number]])[:BANK]
    known = [held_out[number] for number in chosen]
    bank = _even(train, images.labels(train).tolist(), digests)
    numbers: defaultdict[str, int] = defaultdict(lambda: len(numbers))
    return NoveltyRows(
        bank=bank,
        known=known,
        logits=logits[chosen],
        groups={row: numbers[images.splits.keys[row]] for row in {*bank, *known}},
    )


def _even(rows: Sequence[int], labels: Sequence[int], digests: Sequence[bytes]) -> list[int]:
    """Return at most `BANK` rows: all of the rare classes, and equally many of the others."""
    if len(rows) <= BANK:
        return list(rows)
    of_class: defaultdict[int, list[int]] = defaultdict(list)
    for row, label in sorted(zip(rows, labels, strict=True), key=lambda pair: digests[pair[0]]):
        of_class[label].append(row)
    ranked = sorted((rank, row) for found in of_class.values() for rank, row in enumerate(found))
    return [row for _, row in ranked[:BANK]]


def fit_novelty(rows: NoveltyRows, features: Floats) -> FittedNovelty | None:
    """Fit the novelty of images to the features and logits of known images.

    Args:
        rows: The images.
        features: float32 [N, D], of `rows.all`, by the network that gave the logits.

    Returns:
        None if no known image has training images to be compared with, or all of them have the same score.
    """
    return novelty_from(rows, known_distances(rows, features), features)


def known_distances(rows: NoveltyRows, features: Floats) -> Scores:
    """Return the distances of the known images to the bank: float64 [S]; infinite if too little is left to compare.

    Args:
        rows: The images.
        features: float32 [N, D], of `rows.all`, by a network of which at most the head was trained on known images.
    """
    if not rows.bank or not rows.known:
        return np.full(len(rows.known), np.inf)
    groups = _groups(rows.known, rows.groups), _groups(rows.bank, rows.groups)
    return _bank(rows, features).distances(features[np.searchsorted(rows.all, rows.known)], groups)


def novelty_from(rows: NoveltyRows, distances: Scores, features: Floats) -> FittedNovelty | None:
    """Return the novelty with known scores from `distances` [S], and a bank of `features` [N, D]; see `fit_novelty`."""
    usable = np.isfinite(distances)
    if not usable.any():
        return None
    distance, energy = distances[usable], energies(rows.logits)[usable]
    scale = np.array([distance.std(), energy.std()])
    if not (scale > 0).all():
        return None
    scores = combine(distance, energy, scale)
    return FittedNovelty(
        novelty=Novelty(bank=_bank(rows, features), scale=scale, known=np.sort(scores)),
        rows=[rows.known[number] for number in np.flatnonzero(usable).tolist()],
        scores=scores,
    )


def _groups(rows: Sequence[int], groups: dict[int, int]) -> npt.NDArray[np.int64]:
    return np.array([groups[row] for row in rows], np.int64)


def _bank(rows: NoveltyRows, features: Floats) -> FeatureBank:
    """Return the bank of `rows.bank`, projected onto principal directions if there are many images."""
    features = features[np.searchsorted(rows.all, rows.bank)]
    center: Floats = (CENTERED * features.mean(axis=0, dtype=np.float64)).astype(np.float32)
    if features.shape[1] <= DIRECTIONS or len(features) < IMAGES_PER_DIRECTION * DIRECTIONS:
        return FeatureBank(center=center, directions=None, vectors=_half(embed(features, center, None)))
    directions = _half(principal_directions(torch.from_numpy(features - center), DIRECTIONS).numpy())
    return FeatureBank(center=center, directions=directions, vectors=_half(embed(features, center, directions)))


def _half(values: Floats) -> Floats:
    """Round to float16, as the run stores it, so that known scores are those of the stored bank."""
    rounded: Floats = values.astype(np.float16).astype(np.float32)
    return rounded
