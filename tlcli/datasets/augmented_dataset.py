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
from tlcli.datasets.folders.class_folders import names_class
from tlcli.datasets.image_files import has_image_suffix, is_hidden
from tlcli.datasets.splits import DEFAULT_VALIDATION_FRACTION, SMALL_CLASS, assign_splits
from tlcli.errors import DataError
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter

MAX_NAME_BYTES = 255
"""Length of the longest file name on common file systems, in bytes."""


def check_class_folder_names(classes: Sequence[str]) -> None:
    """Reject class names that cannot be folder names, because the class of a folder is always its name.

    Raises:
        DataError: A name is empty, hidden, or too long, or contains a slash.
    """
    for name in classes:
        if not name or "/" in name or "\0" in name or is_hidden(name) or len(os.fsencode(name)) > MAX_NAME_BYTES:
            raise DataError(
                f"class {name!r} cannot be the name of a class folder. Rename the class: no slashes, at most "
                f"{MAX_NAME_BYTES} bytes, and no dot at the start."
            )


def original_path(dataset: Dataset, sample: Sample, digest: bytes) -> str:
    """Return the path of a sample's original, relative to the new dataset's folder.

    If DATA is a folder, the original keeps its path below its class folder. If it is in none, because its label was
    corrected, or DATA is a table, whose images may be anywhere, it gets a name that starts with its digest.
    """
    below = _path_in_class_folder(dataset, sample) if dataset.in_folders else None
    if below is None:
        stem, suffix = os.path.splitext(os.path.basename(sample.path))  # noqa: PTH119, PTH122 - may be any bytes
        if not has_image_suffix(f"x{suffix}"):
            # Images are found by suffix, but decoded by content, so any image suffix works.
            stem, suffix = stem + suffix, ".jpg"
        below = PurePath(_name_with_digest(stem + suffix, digest))
    return str(PurePath(sample.split or "train", dataset.classes[sample.label], below))


def _path_in_class_folder(dataset: Dataset, sample: Sample) -> PurePath | None:
    """Return the path of a sample below the folder of its class; None if it is in no such folder."""
    *folders, name = PurePath(os.path.relpath(sample.path, dataset.root)).parts
    label = dataset.classes[sample.label]
    start = 0 if dataset.samples[0].split is None else 1  # a split may have the name of a class
    depths = (index for index in range(start, len(folders)) if names_class(folders[index], label))
    depth = next(depths, None)
    return None if depth is None else PurePath(*folders[depth + 1 :], name)


def view_path(original: str, digest: bytes, view: int) -> str:
    """Return the path of a view: next to its original, as `<stem>~<digest>-v<view>.png`."""
    if view == 0:
        return original
    path = PurePath(original)
    return str(path.with_name(_shorten_name(path.stem, f"~{digest.hex()[:8]}-v{view}.png")))


def _name_with_digest(name: str, digest: bytes) -> str:
    """Return a file name that starts with the digest of the image."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - may be any bytes
    return _shorten_name(f"{digest.hex()[:16]}-{stem}", suffix)


def _shorten_name(stem: str, end: str) -> str:
    """Join `stem` and `end`, dropping the last characters of the stem if the name would be too long."""
    while len(os.fsencode(stem)) + len(os.fsencode(end)) > MAX_NAME_BYTES:
        stem = stem[:-1]
    return stem + end


@dataclass(frozen=True, kw_only=True)
class AugmentedImage:
    """One image of the new dataset."""

    path: str
    """Path relative to the dataset's folder."""
    index: int
    """Index of its original among the samples of DATA."""
    sample: Sample
    digest: bytes
    view: int


def plan_augmented_dataset(
    dataset: Dataset,
    *,
    copies: int,
    seed: int,
    workers: int,
    report: Reporter,
    similar: Sequence[Sequence[int]] = (),
) -> tuple[list[AugmentedImage], dict[int, str]]:
    """Plan the images to write.

    Only training images get copies, except those that are byte-identical to a validation or test image.

    Args:
        dataset: The dataset to augment.
        copies: Augmented copies of each training image.
        seed: Seed of the split, if validation images have to be held out.
        workers: Number of decoder processes.
        report: Receives progress, notes and warnings.
        similar: Groups of images that belong together, as positions in `dataset.samples`.

    Returns:
        The images to write, each with a group, and the reason for each sample that cannot be read, by its index.

    Raises:
        DataError: A class has no training image left, or no validation images can be held out.
    """
    paths = [sample.path for sample in dataset.samples]
    with (
        ImageLoader(DecodeOptions(), workers=workers) as loader,
        report.task("Read", len(paths)) as advance,
    ):
        images = [image for image in loader.load(paths) if advance(1) is None]
    describe_duplicates(find_duplicates(dataset.samples, [image.digest for image in images]), report)
    digests = {index: image.digest for index, image in enumerate(images) if image.digest is not None}
    samples = _split(dataset, digests, similar, seed=seed, report=report)
    evaluation_digests = {digests[index] for index, sample in samples.items() if sample.split != "train"}
    outputs: dict[str, AugmentedImage] = {}
    for index, sample in samples.items():
        digest = digests[index]
        original = original_path(dataset, sample, digest)
        if original in outputs and outputs[original].digest != digest:
            # Two folders of one class, named in different Unicode forms, hold files with the same name.
            original = str(PurePath(original).with_name(_name_with_digest(PurePath(original).name, digest)))
        views = copies if sample.split == "train" and digest not in evaluation_digests else 0
        for view in range(views + 1):
            path = view_path(original, digest, view)
            # The same path means the same image: a table may repeat a row.
            outputs.setdefault(path, AugmentedImage(path=path, index=index, sample=sample, digest=digest, view=view))
    without_copies = sum(
        sample.split == "train" and digests[index] in evaluation_digests for index, sample in samples.items()
    )
    if without_copies:
        report.warn(f"{without_copies:,} training images get no copies, because they are also in validation or test.")
    return list(outputs.values()), {index: image.error for index, image in enumerate(images) if image.error is not None}


def _split(
    dataset: Dataset, digests: Mapping[int, bytes], similar: Sequence[Sequence[int]], *, seed: int, report: Reporter
) -> dict[int, Sample]:
    """Return the readable samples, each with a split and a group.

    A part of train is held out if DATA has no validation images.
    Without this, splitting the new dataset later would put copies of one image on both sides.
    """
    fraction = None if dataset.has_split("validation") else DEFAULT_VALIDATION_FRACTION
    place = {index: number for number, index in enumerate(digests)}
    samples = assign_splits(
        [dataset.samples[index] for index in digests],
        list(digests.values()),
        fraction=fraction,
        seed=seed,
        similar=[found for group in similar if (found := [place[index] for index in group if index in place])],
    )
    trained = {sample.label for sample in samples if sample.split == "train"}
    if missing := [name for label, name in enumerate(dataset.classes) if label not in trained]:
        raise DataError(
            f"class {missing[0]!r} has no image left to train on in {dataset.root}. Add images, or remove the class.",
            path=dataset.root,
        )
    if fraction is None:
        return dict(zip(digests, samples, strict=True))
    held_out = sum(sample.split == "validation" for sample in samples)
    if not held_out:
        raise DataError(
            f"{dataset.root} has no validation images, and none could be held out: classes with fewer than "
            f"{SMALL_CLASS} images stay in train{', and so does one group of each class' * bool(similar)}. Put images "
            f"of each class into a folder named val next to train{', or pass --group-by none' * bool(similar)}.",
            path=dataset.root,
        )
    report.note(
        f"  {held_out:,} of {len(samples):,} images are held out for validation, so that no copy of a training "
        "image is used for evaluation"
    )
    return dict(zip(digests, samples, strict=True))
