"""The dataset that `tlcli augment` writes: which images it holds, and the path of each.

Images are written to `<split>/<class>/...`. No original's name can lead out of the dataset's folder, and no image is
lost when the folder is read again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from tlcli.datasets.dataset import Dataset, Sample
from tlcli.datasets.descriptions import describe_duplicates
from tlcli.datasets.duplicates import find_duplicates
from tlcli.datasets.image_files import has_image_suffix, is_hidden
from tlcli.datasets.splits import DEFAULT_VALIDATION_FRACTION, SMALL_CLASS, assign_splits
from tlcli.errors import DataError
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter
from tlcli.settings import AugmentSettings

LONGEST = 255
"""Bytes of the longest name that the usual file systems take."""


def check_class_folder_names(classes: Sequence[str]) -> None:
    """Refuse classes that no folder can be named after; a folder's class is always its name.

    Raises:
        DataError: a name is empty, hidden, has a slash in it, or is too long.
    """
    for name in classes:
        if not name or "/" in name or "\0" in name or is_hidden(name) or len(os.fsencode(name)) > LONGEST:
            raise DataError(
                f"class {name!r} cannot be a folder's name, which is how a data set in folders says its classes. "
                f"Rename it: without slashes, at most {LONGEST} bytes long, and not beginning with a dot."
            )


def original_path(dataset: Dataset, sample: Sample, digest: bytes) -> str:
    """Where the original of a sample goes, below the new data set's folder.

    From a folder, it keeps its path below its class. From a table, whose images may lie anywhere, it gets a name
    that begins with its digest.
    """
    if dataset.in_folders:
        parts = PurePath(os.path.relpath(sample.path, dataset.root)).parts
        below = PurePath(*parts[1 if dataset.samples[0].split is None else 2 :])
    else:
        stem, suffix = os.path.splitext(os.path.basename(sample.path))  # noqa: PTH119, PTH122 - may be any bytes
        if not has_image_suffix(f"x{suffix}"):
            # Images are found by their suffix, and then decoded by their content: any will do.
            stem, suffix = stem + suffix, ".jpg"
        below = PurePath(_named(f"{digest.hex()[:16]}-{stem}", suffix))
    return str(PurePath(sample.split or "train", dataset.classes[sample.label], below))


def view_path(original: str, digest: bytes, view: int) -> str:
    """Where a view goes: beside its original, as `<stem>~<digest>-v<view>.png`."""
    if view == 0:
        return original
    path = PurePath(original)
    return str(path.with_name(_named(path.stem, f"~{digest.hex()[:8]}-v{view}.png")))


def _named(stem: str, end: str) -> str:
    """`stem` and `end`, the stem without its last characters where both would be too long for a name."""
    while len(os.fsencode(stem)) + len(os.fsencode(end)) > LONGEST:
        stem = stem[:-1]
    return stem + end


@dataclass(frozen=True, kw_only=True)
class AugmentedImage:
    """One image of the new data set."""

    path: str
    """Below the data set's folder."""
    index: int
    """Of its original among the samples of DATA."""
    sample: Sample
    digest: bytes
    view: int


def plan_augmented_dataset(
    dataset: Dataset, settings: AugmentSettings, report: Reporter
) -> tuple[list[AugmentedImage], dict[int, str]]:
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
    outputs: dict[str, AugmentedImage] = {}
    for index, sample in samples.items():
        digest = digests[index]
        original = original_path(dataset, sample, digest)
        copies = settings.copies if sample.split == "train" and digest not in judging else 0
        for view in range(copies + 1):
            path = view_path(original, digest, view)
            # The same place twice is the same image twice: a table may repeat a row.
            outputs.setdefault(path, AugmentedImage(path=path, index=index, sample=sample, digest=digest, view=view))
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
    fraction = None if dataset.has_split("validation") else DEFAULT_VALIDATION_FRACTION
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
