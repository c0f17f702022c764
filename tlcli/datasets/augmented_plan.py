"""What an augmented data set is to hold: originals in their splits, and copies of those that train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tlcli.datasets.augmented_layout import original_path, view_path
from tlcli.datasets.dataset import Dataset, Sample
from tlcli.datasets.duplicates import find_duplicates
from tlcli.datasets.splits import HELD_OUT, SMALL_CLASS, assign_splits
from tlcli.datasets.summary import describe_duplicates
from tlcli.errors import DataError
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter
from tlcli.settings import AugmentSettings


@dataclass(frozen=True, kw_only=True)
class Output:
    """One image of the new data set."""

    path: str
    """Below the data set's folder."""
    index: int
    """Of its original among the samples of DATA."""
    sample: Sample
    digest: bytes
    view: int


def plan(dataset: Dataset, settings: AugmentSettings, report: Reporter) -> tuple[list[Output], dict[int, str]]:
    """Every image that is to be written; and why not, for samples whose files cannot be read.

    Only training images get copies, and none whose twin validates or tests.
    """
    paths = [sample.path for sample in dataset.samples]
    with (
        ImageLoader(DecodeOptions(), workers=settings.compute.worker_count()) as loader,
        report.task("Read", len(paths)) as advance,
    ):
        images = [image for image in loader.load(paths) if advance(1) is None]
    describe_duplicates(find_duplicates(dataset.samples, [image.digest for image in images]), report)
    digests = {index: image.digest for index, image in enumerate(images) if image.digest is not None}
    samples = _split(dataset, digests, settings, report)
    judging = {digests[index] for index, sample in samples.items() if sample.split != "train"}
    outputs: dict[str, Output] = {}
    for index, sample in samples.items():
        digest = digests[index]
        original = original_path(dataset, sample, digest)
        copies = settings.copies if sample.split == "train" and digest not in judging else 0
        for view in range(copies + 1):
            path = view_path(original, digest, view)
            # The same place twice is the same image twice: a table may repeat a row.
            outputs.setdefault(path, Output(path=path, index=index, sample=sample, digest=digest, view=view))
    both = sum(sample.split == "train" and digests[index] in judging for index, sample in samples.items())
    if both:
        report.warn(f"{both:,} training images get no copies, since they also stand in validation or test.")
    return list(outputs.values()), {index: image.error for index, image in enumerate(images) if image.error is not None}


def _split(
    dataset: Dataset, digests: Mapping[int, bytes], settings: AugmentSettings, report: Reporter
) -> dict[int, Sample]:
    """The readable samples, each with its split: DATA's own, or a part of train held out where it has no validation.

    Otherwise whoever splits the new data set would put copies of one image on both sides.
    """
    fraction = None if dataset.has_split("validation") else HELD_OUT
    samples = assign_splits(
        [dataset.samples[index] for index in digests], list(digests.values()), fraction=fraction, seed=settings.seed
    )
    trained = {sample.label for sample in samples if sample.split == "train"}
    if missing := [name for label, name in enumerate(dataset.classes) if label not in trained]:
        raise DataError(
            f"class {missing[0]!r} has no image left to train on in {dataset.root}. Add some, or remove the class.",
            path=dataset.root,
        )
    if fraction is None:
        return dict(zip(digests, samples, strict=True))
    held_out = sum(sample.split == "validation" for sample in samples)
    if not held_out:
        raise DataError(
            f"{dataset.root} has no validation images, and none could be held out: classes under {SMALL_CLASS} "
            "images stay in train. Put some images of each class into a validation folder beside train.",
            path=dataset.root,
        )
    report.note(
        f"  {held_out:,} of {len(samples):,} images are held out for validation, so that no copy of an image judges "
        "its original"
    )
    return dict(zip(digests, samples, strict=True))
