"""An exported network beside the original, on the same pixels.

Shapes: N images of H x W pixels with C channels, B of them in a batch, k classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tlcli.errors import ArtifactError
from tlcli.exporting.comparison_images import ComparisonImages
from tlcli.exporting.errors import refusing
from tlcli.images.preprocess import Preprocessing
from tlcli.inference.predictor import Predictor
from tlcli.progress import Advance
from tlcli.runs.run import Run

EXACT = 1e-4
"""Largest difference of a probability between two computations in fp32."""
ROUNDED = 1e-3
"""The same where the original rounds what its frozen part gives to 16 bits, as the feature cache does."""
HALF = 0.05
"""The same where the original computes in bf16."""
INT8_AGREEMENT = 0.9
"""Share of images that get the same label from an integer network; its probabilities are free."""

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]
Exported = Callable[[Pixels], tuple[Values, Values]]
"""Pixels uint8 [B, H, W, C] to logits and probabilities, both float32 [B, k]."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What an export must keep to."""

    difference: float | None
    """Largest difference of a probability; None doesn't limit it."""
    agreement: float
    """Least share of images with the same label."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How near an export comes."""

    images: int
    held_out: int
    """Images that the run wasn't trained on."""
    max_difference: float
    """Of a probability, over all images and classes."""
    agreement: float
    """Share of images with the same label."""
    accuracy_before: float
    """Share of right labels, of the original."""
    accuracy_after: float
    """Share of right labels, of the export."""


def tolerance(run: Run, *, int8: bool) -> Tolerance:
    """How far an export of this run may differ from it."""
    if int8:
        return Tolerance(difference=None, agreement=INT8_AGREEMENT)
    if run.info["precision"] == "bf16":
        return Tolerance(difference=HALF, agreement=0)
    vectors = run.layer in {0, run.info["freeze"]["of"]}  # then nothing that is rounded
    return Tolerance(difference=EXACT if vectors else ROUNDED, agreement=0)


def compare(predictor: Predictor, exported: Exported, images: ComparisonImages, advance: Advance) -> Comparison:
    """Run both on the images, the export in batches of one, two and seven.

    Raises:
        ArtifactError: the export can't be run on them.
    """
    size = predictor.model.batch_size
    parts = [images.pixels[start : start + size] for start in range(0, len(images.pixels), size)]
    logits = np.concatenate(list(predictor.model.map(parts)))
    expected = predictor.probabilities(logits)
    answers = []
    for batch in _batches(images.pixels):
        with refusing(f"the export can't take {len(batch)} images at once", "Try another --format."):
            answers.append(exported(batch))
        advance(len(batch))
    found, after = (np.concatenate(values) for values in zip(*answers, strict=True))
    label, label_after = logits.argmax(1), found.argmax(1)
    return Comparison(
        images=len(logits),
        held_out=images.held_out,
        max_difference=float(np.abs(after - expected).max()),
        agreement=float((label == label_after).mean()),
        accuracy_before=float((label == images.labels).mean()),
        accuracy_after=float((label_after == images.labels).mean()),
    )


def _batches(pixels: Pixels) -> Iterator[Pixels]:
    starts = [0, 1, *range(3, len(pixels), 7), len(pixels)]
    yield from (pixels[start:end] for start, end in pairwise(starts) if start < min(end, len(pixels)))


def check(found: Comparison, limits: Tolerance) -> None:
    """Refuse an export that says something else.

    Raises:
        ArtifactError: it lies beyond its limits.
    """
    said = (
        f"On {found.images} images the export differs from the run by up to {found.max_difference:.2g} in a "
        f"probability, and {100 * found.agreement:.1f} % of labels agree"
    )
    most = 1.0 if limits.difference is None else limits.difference
    if not found.max_difference <= most:  # also where it is no number
        raise ArtifactError(f"{said}; at most {most:g} is accepted. Nothing was written.")
    if not found.agreement >= limits.agreement:
        raise ArtifactError(
            f"{said}; at least {100 * limits.agreement:.0f} % is expected. Nothing was written. Leave --int8 out: "
            "this network needs more than 8 bits."
        )


def normalized(pixels: Pixels, preprocessing: Preprocessing) -> Values:
    """Pixels uint8 [B, H, W, C] as the network takes them: float32 [B, C, H, W]."""
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    images = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
