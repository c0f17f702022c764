"""Which labeled images belong together, by their cached features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tlcli.datasets.dataset import Dataset, Sample
from tlcli.engines.choice import choose_engine
from tlcli.features.backbone import place_backbone
from tlcli.features.cache import FeatureCache
from tlcli.features.extractor import FeatureExtractor, describe_cut, freeze_at
from tlcli.features.known_networks import open_backbone
from tlcli.features.similar_images import SimilarImages, find_similar_images
from tlcli.features.stored_rows import StoredRows
from tlcli.images.intensity import IntensityRange
from tlcli.progress import Reporter
from tlcli.settings import CacheSettings, ComputeSettings, NetworkSettings


def find_similar_samples(
    extractor: FeatureExtractor, samples: Sequence[Sample], digests: Sequence[bytes]
) -> SimilarImages:
    """Link samples of one class that belong together.

    Args:
        extractor: Its plain store has the features of all samples.
        samples: N labeled images.
        digests: Digests of their files.
    """
    labels = np.array([sample.label for sample in samples], np.int64)
    rows = StoredRows(extractor, digests, 0)
    has_groups = any(sample.group is not None for sample in samples)
    return find_similar_images(rows.read, labels, has_groups=has_groups, device=extractor.network.head_device)


def in_train(samples: Sequence[Sample]) -> npt.NDArray[np.bool_]:
    """Return which samples are training images, or may become training images: bool [N]."""
    return np.array([sample.split in {None, "train"} for sample in samples], np.bool_)


def group_training_images(
    dataset: Dataset, *, intensity: IntensityRange | None, workers: int, report: Reporter
) -> list[list[int]]:
    """Return the groups of training images that belong together, by the features of the default backbone.

    Args:
        dataset: The images, of which some may be held out.
        intensity: Values that become black and white in gray images with more than 8 bits; None for 0 to 65535.
        workers: Number of decoder processes.
        report: Receives what runs, and its progress.

    Returns:
        Positions in `dataset.samples`.

    Raises:
        ArtifactError: the cache is damaged.
        MachineError: the cache cannot be written, or the disk is full.
    """
    wanted, compute = NetworkSettings(), ComputeSettings()
    cache = FeatureCache(CacheSettings().root(), report)
    network = place_backbone(
        open_backbone(wanted, classes=len(dataset.classes), cache=cache),
        choose_engine(compute.device, compute.precision, compute.engine, images=len(dataset.samples)),
        fit=wanted.input_fit,
        intensity=intensity,
        cache=cache,
        report=report,
    )
    extractor = freeze_at(network, wanted.freeze, workers=workers)
    report.note(network.describe(describe_cut(extractor.cut)))
    train = np.flatnonzero(in_train(dataset.samples)).tolist()
    extraction = extractor.extract([dataset.samples[index].path for index in train])
    usable = [row for row in range(len(train)) if row not in extraction.failures]
    samples = [dataset.samples[train[row]] for row in usable]
    similar = find_similar_samples(extractor, samples, [extraction.digests[row] or b"" for row in usable])
    return [[train[usable[row]] for row in group] for group in similar.groups(in_train(samples))]
