"""The order in which labels are reviewed: the least plausible first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlcli.checking.label_check import RankedLabel, check_labels
from tlcli.datasets.dataset import Dataset
from tlcli.features.extractor import FeatureExtractor
from tlcli.features.similar_samples import find_similar_samples
from tlcli.progress import Reporter


def rank_labels(
    extractor: FeatureExtractor, dataset: Dataset, digests: Sequence[bytes | None], *, seed: int, report: Reporter
) -> tuple[RankedLabel, ...]:
    """Rank the labels of a dataset by out-of-fold predictions, with similar images in one fold.

    Args:
        extractor: Its plain store holds the features.
        dataset: The dataset.
        digests: Digest of each sample's file; None for samples without features, which are not ranked.
        seed: Seed of the folds.
        report: Receives the progress of the fits.

    Raises:
        DataError: A feature is not finite.
    """
    usable = [index for index, digest in enumerate(digests) if digest is not None]
    if not usable:
        return ()
    known = [digest for digest in digests if digest is not None]
    similar = find_similar_samples(extractor, [dataset.samples[index] for index in usable], known)
    groups = [[usable[row] for row in group] for group in similar.groups(np.ones(len(usable), np.bool_))]
    return check_labels(extractor, dataset, usable, known, groups, seed=seed, report=report).ranking
