"""The images of a run: each is read once, and has a digest, a split, or the reason why it cannot be used."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tlcli import processes
from tlcli.datasets.dataset import Dataset
from tlcli.datasets.descriptions import describe_balance, describe_duplicates, describe_failures
from tlcli.datasets.duplicates import Duplicates, find_duplicates
from tlcli.datasets.splits import DEFAULT_VALIDATION_FRACTION, SplitDataset, divide, split_dataset
from tlcli.errors import DataError
from tlcli.features.backbone import LoadedBackbone
from tlcli.features.extraction import Extraction
from tlcli.features.extractor import FeatureExtractor
from tlcli.features.similar_samples import find_similar_samples, in_train
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter
from tlcli.storage.files import canonical_json, portable_name

FOLDS_UP_TO = 1000
"""Number of training images up to which `--freeze auto` compares depths on folds. A fifth of more images is enough."""


@dataclass(frozen=True, kw_only=True)
class UsableImages:
    """The images to train and evaluate on. A row is an image's position in `splits`."""

    dataset: Dataset
    extraction: Extraction
    duplicates: Duplicates
    splits: SplitDataset
    similar: list[list[int]] | None = None
    """Groups of training images that belong together by their features, as positions in `dataset.samples`; None if
    similar images are not kept together."""
    near_copies: frozenset[int] = frozenset()
    """Rows of the validation and test images of DATA that are nearly the same as a training image."""
    unlabeled: Sequence[bytes] = ()
    """Digests of the images without labels that the head is fitted on as well."""
    lost: dict[str, str] = field(default_factory=dict)
    """Why an image, by its path, could not be read again during the run. Grows while images are streamed."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.dataset.classes)

    def rows(self, split: str) -> list[int]:
        """Return the rows of `train`, `validation` or `test`."""
        return self.splits.indices(split)

    def readable(self, split: str) -> list[int]:
        """Return the rows of a split whose images were not lost."""
        return [row for row in self.rows(split) if self.splits.samples[row].path not in self.lost]

    def all_in_train(self) -> UsableImages:
        """Return the same images with the held-out ones in train, for the last fit on all of them."""
        samples = tuple(
            replace(sample, split="train") if sample.split == "validation" else sample for sample in self.splits.samples
        )
        return replace(self, splits=replace(self.splits, samples=samples, cross_validated=True))

    def folds(self, count: int, *, seed: int) -> list[UsableImages]:
        """Divide train into folds, keeping groups together: return the same images once for each fold, held out.

        A class is not held out from a fold without other images of it. Folds that would hold out nothing are left out.
        """
        train = self.rows("train")
        keys, labels = [self.splits.keys[row] for row in train], self.labels(train)
        fold_of = np.array(divide(keys, labels.tolist(), count, seed=seed))
        found = []
        for fold in range(count):
            held_out = (fold_of == fold) & np.isin(labels, labels[fold_of != fold])
            if held_out.any():
                found.append(self._hold_out({row for row, out in zip(train, held_out, strict=True) if out}))
        return found

    def _hold_out(self, rows: Container[int]) -> UsableImages:
        samples = tuple(
            replace(sample, split="validation") if row in rows else sample
            for row, sample in enumerate(self.splits.samples)
        )
        return replace(self, splits=replace(self.splits, samples=samples, cross_validated=False))

    def labels(self, rows: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the class indices of some rows: int64 [len(rows)]."""
        return np.array([self.splits.samples[row].label for row in rows], np.int64)

    def paths(self, rows: Sequence[int]) -> list[str]:
        """Return the paths of some rows."""
        return [self.splits.samples[row].path for row in rows]

    def digests(self, rows: Sequence[int]) -> list[bytes]:
        """Return the SHA-256 of the files of some rows."""
        return [self.splits.digests[row] for row in rows]

    def content_hash(self) -> str:
        """Return a hash of the images' contents, labels and splits, in order, but not of their names."""
        rows = [
            [digest.hex(), sample.label, sample.split]
            for digest, sample in zip(self.splits.digests, self.splits.samples, strict=True)
        ]
        return hashlib.sha256(canonical_json(rows)).hexdigest()[:16]


def held_out_fraction(dataset: Dataset, requested: float | None, *, freeze: str, pretrained: bool) -> float | None:
    """Return the share of train to hold out for validation.

    Folds evaluate every training image, but each requires training a tail. They are used where nothing but the head is
    trained, and where pretrained layers are tuned and depths are compared on few images.

    Args:
        dataset: DATA, which may have validation images of its own.
        requested: The user's `--validation-fraction`.
        freeze: Value of `--freeze`.
        pretrained: Whether the network starts from pretrained weights.

    Returns:
        A fraction in (0, 1); None if DATA has validation images, or folds are used.
    """
    if requested is not None or freeze == "all" or dataset.has_split("validation"):
        return requested
    train = sum(sample.split in {None, "train"} for sample in dataset.samples)
    return None if freeze == "auto" and pretrained and train <= FOLDS_UP_TO else DEFAULT_VALIDATION_FRACTION


def split_usable_images(
    dataset: Dataset,
    extraction: Extraction,
    extractor: FeatureExtractor | None,
    *,
    fraction: float | None,
    seed: int,
    balanced: bool,
    report: Reporter,
) -> UsableImages:
    """Split the usable images, and report the others.

    Args:
        dataset: The labeled images to divide.
        extraction: Digest of each image, or why it cannot be used.
        extractor: Has the features by which similar images are kept together; None keeps only copies and groups
            together.
        fraction: Share of train to hold out, from `held_out_fraction`.
        seed: Seed of the split.
        balanced: Whether classes are weighted by inverse frequency, so that an imbalance needs no warning.
        report: Receives messages about duplicates, failures and imbalance.

    Raises:
        DataError: a class has no usable image in train, or nothing was held out.
    """
    duplicates = find_duplicates(dataset.samples, extraction.digests)
    describe_duplicates(duplicates, report)
    describe_failures(dataset, extraction.failures, report)
    if duplicates.extra or extraction.failures:
        report.note(f"  details: tlcli check {shlex.quote(portable_name(str(dataset.root)))}{dataset.options()}")
    similar, near_copies = _similar_images(dataset, extraction, extractor)
    splits = split_dataset(
        dataset, extraction.digests, extraction.failures, fraction=fraction, seed=seed, similar=similar or ()
    )
    describe_balance(dataset, splits, report, balanced=balanced)
    return UsableImages(
        dataset=dataset,
        extraction=extraction,
        duplicates=duplicates,
        splits=splits,
        similar=similar,
        near_copies=near_copies,
    )


def _similar_images(
    dataset: Dataset, extraction: Extraction, extractor: FeatureExtractor | None
) -> tuple[list[list[int]] | None, frozenset[int]]:
    """Return the groups of similar training images, as sample indices, and the near copies of training images, as rows.

    Under torchrun, the first process finds them: rounding may differ between devices.
    """
    usable = [
        index
        for index, digest in enumerate(extraction.digests)
        if digest is not None and index not in extraction.failures
    ]
    if extractor is None or not usable:
        return None, frozenset()

    def find() -> tuple[list[list[int]], frozenset[int]]:
        samples = [dataset.samples[index] for index in usable]
        train = in_train(samples)
        similar = find_similar_samples(extractor, samples, [extraction.digests[index] or b"" for index in usable])
        groups = [[usable[row] for row in group] for group in similar.groups(train)]
        return groups, frozenset(similar.near_copies(train).tolist())

    return processes.from_first(find)


def read_images(dataset: Dataset, network: LoadedBackbone, workers: int) -> Extraction:
    """Read and decode every image, for its digest and whether it can be used, without computing features.

    Several processes share the images; each gets the whole result.

    Args:
        dataset: The labeled images to read.
        network: Its preprocessing decides how images are decoded; its cache remembers their digests.
        workers: Number of decoder processes.
    """
    started = time.monotonic()
    paths = [sample.path for sample in dataset.samples]
    whole = Extraction(digests=[])
    for part in processes.in_parts(paths, lambda part: _read(part, network, workers)):
        whole.failures |= {len(whole.digests) + index: reason for index, reason in part.failures.items()}
        whole.digests += part.digests
    whole.seconds = time.monotonic() - started
    return whole


def _read(paths: Sequence[str], network: LoadedBackbone, workers: int) -> Extraction:
    memo = network.cache.memo
    extraction = Extraction(digests=[None] * len(paths))
    with (
        ImageLoader(
            DecodeOptions(preprocessing=network.preprocessing), workers=workers, report=network.report
        ) as loader,
        network.report.task("Images", len(paths)) as advance,
    ):
        for index, image in enumerate(loader.load(paths)):
            extraction.digests[index] = image.digest
            if image.error is not None:
                extraction.failures[index] = image.error
            memo.remember(paths[index], image)
            advance(1)
    memo.save()
    return extraction


def require_unchanged(extraction: Extraction, digests: Sequence[bytes]) -> None:
    """Raise an error if images have changed since the run began.

    Args:
        extraction: Their current digests and failures.
        digests: Their digests when the run began.

    Raises:
        DataError: some changed or vanished.
    """
    changed = {index for index, (now, was) in enumerate(zip(extraction.digests, digests, strict=True)) if now != was}
    if lost := changed | extraction.failures.keys():
        raise DataError(
            f"{len(lost):,} images changed or vanished since the run began. Start again with --overwrite to train on "
            "the images that are there now."
        )
