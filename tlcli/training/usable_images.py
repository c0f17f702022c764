"""The images of a run: read once, each with its digest, its split, or the reason why it can't be used."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tlcli import processes
from tlcli.datasets.dataset import Dataset
from tlcli.datasets.descriptions import describe_balance, describe_duplicates, describe_failures
from tlcli.datasets.duplicates import Duplicates, find_duplicates
from tlcli.datasets.splits import DEFAULT_VALIDATION_FRACTION, SplitDataset, split_dataset
from tlcli.errors import DataError
from tlcli.features.extract import Extraction
from tlcli.features.network import Network
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter
from tlcli.settings import FinetuneSettings
from tlcli.storage.files import portable_name


@dataclass(frozen=True, kw_only=True)
class UsableImages:
    """What there is to learn from and to be judged on."""

    dataset: Dataset
    extraction: Extraction
    duplicates: Duplicates
    splits: SplitDataset
    lost: dict[str, str] = field(default_factory=dict)
    """Why an image, by its path, could not be read again during the run; grows while images are streamed."""

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.dataset.classes)

    def rows(self, split: str) -> list[int]:
        """Positions in `splits` of the images of a split."""
        return self.splits.indices(split)

    def readable(self, split: str) -> list[int]:
        """Those of a split that were not lost."""
        return [row for row in self.rows(split) if self.splits.samples[row].path not in self.lost]

    def labels(self, rows: Sequence[int]) -> npt.NDArray[np.int64]:
        """int64 [len(rows)]."""
        return np.array([self.splits.samples[row].label for row in rows], np.int64)

    def paths(self, rows: Sequence[int]) -> list[str]:
        """The files of some rows."""
        return [self.splits.samples[row].path for row in rows]

    def digests(self, rows: Sequence[int]) -> list[bytes]:
        """SHA-256 of the files of some rows."""
        return [self.splits.digests[row] for row in rows]


def held_out(dataset: Dataset, settings: FinetuneSettings) -> float | None:
    """The share of train that judges; None where DATA brings validation images, or folds will judge."""
    fraction = settings.validation_fraction
    if fraction is None and settings.network.freeze != "all" and not dataset.has_split("validation"):
        return DEFAULT_VALIDATION_FRACTION  # folds would mean to train five tails
    return fraction


def settle_images(
    dataset: Dataset, extraction: Extraction, settings: FinetuneSettings, report: Reporter
) -> UsableImages:
    """Split the usable images, and tell of the others.

    Raises:
        DataError: a class has no usable image in train, or nothing was held out.
    """
    duplicates = find_duplicates(dataset.samples, extraction.digests)
    describe_duplicates(duplicates, report)
    describe_failures(dataset, extraction.failures, report)
    if duplicates.extra or extraction.failures:
        report.note(f"  details: tlcli check {shlex.quote(portable_name(str(dataset.root)))}")
    fraction = held_out(dataset, settings)
    splits = split_dataset(
        dataset, extraction.digests, extraction.failures, fraction=fraction, seed=settings.network.seed
    )
    describe_balance(dataset, splits, report, balanced=settings.balance)
    return UsableImages(dataset=dataset, extraction=extraction, duplicates=duplicates, splits=splits)


def scan(dataset: Dataset, network: Network, workers: int, report: Reporter) -> tuple[Extraction, float]:
    """Read and decode every image, for its digest and whether it can be used; the seconds it took.

    Several processes share the images; each gets what all found.
    """
    started = time.monotonic()
    paths = processes.share([sample.path for sample in dataset.samples])
    extraction = Extraction(digests=[None] * len(paths))
    with (
        ImageLoader(DecodeOptions(preprocessing=network.preprocessing), workers=workers) as loader,
        report.task("Images", len(paths)) as advance,
    ):
        for index, image in enumerate(loader.load(paths)):
            extraction.digests[index] = image.digest
            if image.error is not None:
                extraction.failures[index] = image.error
            network.memo.remember(paths[index], image)
            advance(1)
    network.memo.save()
    whole = Extraction(digests=[])
    for part in processes.gather(extraction):
        whole.failures |= {len(whole.digests) + index: reason for index, reason in part.failures.items()}
        whole.digests += part.digests
    return whole, time.monotonic() - started


def refuse_lost(extraction: Extraction, digests: Sequence[bytes]) -> None:
    """Stop where images that were there when the run began are not what they were.

    Args:
        extraction: What became of them.
        digests: What they were.

    Raises:
        DataError: how many.
    """
    changed = {index for index, (now, was) in enumerate(zip(extraction.digests, digests, strict=True)) if now != was}
    if lost := changed | extraction.failures.keys():
        raise DataError(
            f"{len(lost):,} images changed or vanished since the run began. Start again with --overwrite for what is "
            "there now."
        )
