"""Images without labels that a head is trained on as well."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tlcli import processes
from tlcli.datasets.dataset import Dataset
from tlcli.datasets.prediction_inputs import PredictionInputs
from tlcli.datasets.tables.read import images_of_no_class
from tlcli.datasets.tables.suffixes import is_table
from tlcli.errors import DataError
from tlcli.features.extractor import FeatureExtractor
from tlcli.features.file_digests import DigestReader
from tlcli.progress import Reporter
from tlcli.training.usable_images import UsableImages

MOST = 4096
"""Rows of labeled images, and unlabeled images, that are used at most: all of them are compared with each other."""


@dataclass(frozen=True, kw_only=True)
class UnlabeledSource:
    """The images of `--unlabeled`, listed but not read."""

    name: str
    """As typed."""
    paths: Sequence[str]
    of_no_class: Sequence[str]
    """Images that `tlcli label` recorded as belonging to none of the classes."""


def list_unlabeled(source: str | None, dataset: Dataset, report: Reporter) -> UnlabeledSource | None:
    """List the images of SOURCE, before any work, so that a wrong SOURCE fails at once; None if there is none.

    Raises:
        DataError: SOURCE does not exist, or has no images.
    """
    return None if source is None else processes.from_first(lambda: _list(source, dataset, report))


def _list(source: str, dataset: Dataset, report: Reporter) -> UnlabeledSource:
    try:
        inputs = PredictionInputs((source,), io.BytesIO())
        paths = list(inputs)
    except DataError as error:
        raise DataError(f"--unlabeled: {error.message}", path=error.path) from error
    for problem in inputs.unlisted:
        report.warn(problem)
    if not paths:
        raise inputs.no_images("--unlabeled: ")
    of_no_class = images_of_no_class(dataset.root) if is_table(dataset.root) else []
    return UnlabeledSource(name=source, paths=paths, of_no_class=of_no_class)


def with_unlabeled(
    images: UsableImages,
    source: UnlabeledSource | None,
    extractor: FeatureExtractor,
    reader: DigestReader,
    *,
    views: int = 0,
    refit: bool = False,
    verify: bool = False,
) -> UsableImages:
    """Make sure that the features of unlabeled images are stored, and return the images with those to use.

    Copies count once. Images of DATA are left out, and so are those that belong to none of its classes, and with a
    warning, those that cannot be read. Of more than `MOST` images, those with the lowest digests are used: a random
    part that hardly changes when others are added.

    Args:
        images: The labeled images.
        source: The images without labels; None changes nothing.
        extractor: The network, cut before its head.
        reader: Reads the digests of the images of `source`.
        views: Number of augmented views of each training image.
        refit: Whether the head is fitted on the validation images as well in the end.
        verify: Read every file again, even if it is unchanged.

    Raises:
        DataError: SOURCE has no usable images besides those of DATA.
        MachineError: not enough disk space or memory for the features.
    """
    if source is None:
        return images
    report = extractor.network.report
    labeled = images.rows("train") + (images.rows("validation") if refit else [])
    if (views + 1) * len(labeled) > MOST:
        counted = "labeled images and views of them" if views else "labeled images"
        report.note(f"Unlabeled images are not used: there are more than {MOST:,} {counted}")
        return images
    started = time.monotonic()
    others = processes.from_first(lambda: _others(images, source, reader))
    usable = _extract([source.paths[index] for index in others[:MOST]], extractor, verify=verify)
    usable -= set(images.extraction.digests)  # a file may have changed since its digest was read
    if not usable:
        raise DataError(
            f"--unlabeled: no usable image in {source.name} besides those of DATA. Pass other images, or remove the "
            "option.",
            path=source.name,
        )
    note = f", of {len(others):,}" if len(others) > MOST else ""
    report.note(f"Unlabeled {len(usable):,} images{note}")
    seconds = images.extraction.seconds + time.monotonic() - started
    return replace(images, unlabeled=sorted(usable), extraction=replace(images.extraction, seconds=seconds))


def _extract(paths: Sequence[str], extractor: FeatureExtractor, *, verify: bool) -> set[bytes]:
    """Make sure that the features of images are stored, and return the digests of those that can be used."""
    if not paths:
        return set()
    extraction = extractor.extract(paths, verify=verify)
    if extraction.failures:
        index, reason = min(extraction.failures.items())
        extractor.network.report.warn(
            f"{len(extraction.failures):,} of {len(paths):,} unlabeled images cannot be used, such as {paths[index]}: "
            f"{reason}"
        )
    usable = (digest for index, digest in enumerate(extraction.digests) if index not in extraction.failures)
    return set(filter(None, usable))


def _others(images: UsableImages, source: UnlabeledSource, reader: DigestReader) -> list[int]:
    """Return one path for each image that DATA says nothing about, by its index in `source.paths`, in random order.

    Files that cannot be read come last.
    """
    digests = reader.read([*source.paths, *source.of_no_class])
    known = set(images.extraction.digests) | set(digests[len(source.paths) :]) - {None}
    if corrections := images.dataset.corrections:
        known |= corrections.left_out_digests
    first = {digest: index for index, digest in reversed(list(enumerate(digests[: len(source.paths)])))}
    unreadable = [index for index, digest in enumerate(digests[: len(source.paths)]) if digest is None]
    return [first[digest] for digest in sorted(filter(None, first)) if digest not in known] + unreadable
