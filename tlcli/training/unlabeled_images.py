"""Images without labels that a head is trained on as well."""

from __future__ import annotations

import io
from dataclasses import replace

from tlcli.datasets.image_files import describe_skipped
from tlcli.datasets.prediction_inputs import PredictionInputs
from tlcli.errors import DataError
from tlcli.features.extraction import Extraction
from tlcli.features.extractor import FeatureExtractor
from tlcli.training.usable_images import UsableImages

MOST = 4096
"""Labeled and unlabeled images to use at most, of each: neighbors are found by comparing all of them."""


def with_unlabeled(
    images: UsableImages, source: str, extractor: FeatureExtractor, *, copies: int = 1, verify: bool = False
) -> UsableImages:
    """Make sure that the features of unlabeled images are stored, and return the images with those to use.

    Copies count once. Images of DATA are left out, and so are images that cannot be read, with a warning. Of more than
    `MOST` images, those with the lowest digests are used: a random part that hardly changes when others are added.

    Args:
        images: The labeled images.
        source: Folder, table, tar, list, or URL of images.
        extractor: The network, cut before its head.
        copies: Rows of each training image, 1 and the number of its views.
        verify: Read every file again, even if it is unchanged.

    Raises:
        DataError: SOURCE does not exist, or has no images besides those of DATA.
        MachineError: not enough disk space or memory for the features.
    """
    report = extractor.network.report
    if copies * len(images.rows("train")) > MOST:
        report.note(f"Unlabeled images are not used: there are more than {MOST:,} labeled ones")
        return images
    inputs = PredictionInputs((source,), io.BytesIO())
    paths = list(inputs)
    if not paths:
        skipped = describe_skipped({reason: count for reason, count in inputs.skipped.items() if count})
        raise DataError(f"no images in {source}{f' (skipped: {skipped})' if skipped else ''}.", path=source)
    extraction = extractor.extract(paths, verify=verify)
    usable = _usable(extraction) - set(images.extraction.digests)
    if extraction.failures:
        index, reason = min(extraction.failures.items())
        report.warn(
            f"{len(extraction.failures):,} of {len(paths):,} unlabeled images cannot be used, such as {paths[index]}: "
            f"{reason}"
        )
    if not usable:
        raise DataError(
            f"no usable image in {source} besides those of DATA. Expected other images, without labels.", path=source
        )
    kept = sorted(usable)[:MOST]
    note = f", of which {MOST:,} are used" if len(kept) < len(usable) else ""
    report.note(f"Unlabeled {len(usable):,} images{note}")
    return replace(images, unlabeled=kept)


def _usable(extraction: Extraction) -> set[bytes]:
    return {
        digest
        for index, digest in enumerate(extraction.digests)
        if digest is not None and index not in extraction.failures
    }
