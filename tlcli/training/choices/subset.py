"""The training images that candidates are compared on: few, the same in every run, and always in the same folds.

Shapes: N images.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tlcli import processes
from tlcli.datasets.dataset import Dataset, Sample
from tlcli.datasets.splits import divide, group_keys, uniform_hash
from tlcli.features.extractor import FeatureExtractor
from tlcli.features.file_digests import DigestReader
from tlcli.features.similar_samples import find_similar_samples, in_train

IMAGES = 600
"""Number of images to compare candidates on."""
FEWEST = 50
"""With fewer images, nothing is compared: chance decides."""
FEWEST_OF_CLASS = 10
"""A class keeps so many images, if it has them, however rare it is."""
FOLDS = 10
MOST_READ = 20_000
"""Of more training images, a part is chosen by path, so that not all of them are read."""


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Labeled images, each with the fold that holds it out."""

    samples: tuple[Sample, ...]
    digests: tuple[bytes, ...]
    keys: tuple[str, ...]
    """A key for each image; images with the same key belong together, and are in one fold."""
    classes: int
    """Number of classes of DATA."""
    seed: int

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The classes: int64 [N]."""
        return np.array([sample.label for sample in self.samples], np.int64)

    @property
    def paths(self) -> list[str]:
        """The files."""
        return [sample.path for sample in self.samples]

    @property
    def fold_count(self) -> int:
        """Number of folds."""
        return min(FOLDS, len(set(self.keys)))

    @property
    def folds(self) -> npt.NDArray[np.int64]:
        """The fold of each image: int64 [N]."""
        return np.array(divide(self.keys, self.labels.tolist(), self.fold_count, seed=self.seed), np.int64)

    @property
    def comparable(self) -> bool:
        """Whether there are enough images to compare candidates."""
        return len(self.samples) >= FEWEST and self.fold_count > 1

    def _of(self, rows: Sequence[int]) -> Subset:
        return Subset(
            samples=tuple(self.samples[row] for row in rows),
            digests=tuple(self.digests[row] for row in rows),
            keys=tuple(self.keys[row] for row in rows),
            classes=self.classes,
            seed=self.seed,
        )

    def grouped(self, extractor: FeatureExtractor, *, similar: bool, verify: bool) -> Subset:
        """Compute features, leave out images that cannot be read, and keep images that belong together in one fold.

        Args:
            extractor: The default candidate, whose features tell which images are similar.
            similar: Whether similar images belong together.
            verify: Read every file again, even if its file is unchanged.
        """
        extraction = extractor.extract(self.paths, verify=verify)
        usable = self._of(
            [
                row
                for row, digest in enumerate(self.digests)
                if extraction.digests[row] == digest and row not in extraction.failures
            ]
        )

        def find() -> list[list[int]]:
            found = find_similar_samples(extractor, usable.samples, usable.digests)
            return found.groups(in_train(usable.samples))

        groups = processes.from_first(find) if similar and usable.samples else []
        return Subset(
            samples=usable.samples,
            digests=usable.digests,
            keys=tuple(group_keys(usable.samples, usable.digests, groups)),
            classes=self.classes,
            seed=self.seed,
        )


def choose_subset(dataset: Dataset, reader: DigestReader, *, seed: int) -> Subset:
    """Choose up to about `IMAGES` training images, of each class its share.

    A hash of the file's bytes decides, so that renaming images changes nothing, and adding some changes little.

    Args:
        dataset: The labeled images, of which those outside of train are left out.
        reader: Reads the digests of the training images.
        seed: Seed of the hashes.
    """
    samples = [sample for sample, train in zip(dataset.samples, in_train(dataset.samples), strict=True) if train]
    if len(samples) > MOST_READ:
        samples = sorted(samples, key=lambda sample: uniform_hash(seed, sample.path))[:MOST_READ]
    found = processes.from_first(lambda: reader.read([sample.path for sample in samples]))
    unique = {digest: sample for digest, sample in zip(found, samples, strict=True) if digest is not None}
    digests, kept = list(unique), list(unique.values())
    rows = _stratified(kept, digests, IMAGES, seed)
    return Subset(
        samples=tuple(kept[row] for row in rows),
        digests=tuple(digests[row] for row in rows),
        keys=tuple(digests[row].hex() for row in rows),
        classes=len(dataset.classes),
        seed=seed,
    )


def _stratified(samples: Sequence[Sample], digests: Sequence[bytes], count: int, seed: int) -> list[int]:
    """Return the positions of about `count` samples, of each class those with the smallest hashes."""
    by_class: defaultdict[int, list[int]] = defaultdict(list)
    for row, sample in enumerate(samples):
        by_class[sample.label].append(row)
    kept: list[int] = []
    for rows in by_class.values():
        share = max(FEWEST_OF_CLASS, math.ceil(count * len(rows) / len(samples)))
        kept += sorted(rows, key=lambda row: uniform_hash(seed, digests[row].hex()))[:share]
    return sorted(kept)
