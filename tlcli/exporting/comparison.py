"""Compare an exported network with the run, on the same pixels.

Shapes: N images of H x W pixels with C channels, B of them in a batch, k classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tlcli.errors import ArtifactError
from tlcli.exporting.comparison_images import ComparisonImages
from tlcli.exporting.library_errors import library_errors
from tlcli.images.batch import Floats, Pixels
from tlcli.inference.network_outputs import Outputs
from tlcli.inference.predictor import Predictor
from tlcli.progress import Advance
from tlcli.runs.run import Run

FP32_TOLERANCE = 1e-4
"""Largest difference of a probability between two computations in fp32."""
ROUNDED_TOLERANCE = 1e-3
"""The same if the run rounds the features of its frozen layers to 16 bits, as the feature cache does."""
BF16_TOLERANCE = 0.05
"""The same if the run computes in bf16."""
FP16_TOLERANCE, FP16_AGREEMENT = 0.05, 0.95
"""Largest difference of a probability for an fp16 network, and smallest share of images with the same class."""
INT8_AGREEMENT = 0.9
"""Smallest share of images for which an int8 network must predict the same class; its probabilities are not limited."""

NOVELTY_TOLERANCE, NOVELTY_RANKS = 0.01, 2
"""Largest difference of the novelty, and in ranks among the known images if these are few: the images compared may be
known ones, whose ranks rounding decides."""

ExportedNetwork = Callable[[Pixels], tuple[Floats, ...]]
"""Pixels uint8 [B, H, W, C] to logits and probabilities, both float32 [B, k], and perhaps the novelty, float32 [B]."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How much an export may differ from the run."""

    difference: float | None
    """Largest difference of a probability; None for no limit."""
    agreement: float
    """Smallest share of images with the same predicted class."""
    remedy: str = ""
    """What to do if the export is refused."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How much an export differs from the run."""

    images: int
    held_out: int
    """Images that the run was not trained on."""
    max_difference: float
    """Largest difference of a probability, over all images and classes."""
    agreement: float
    """Share of images with the same predicted class."""
    novelty_difference: float | None
    """Largest difference of the novelty; None if the export does not compute it."""
    novelty_limit: float
    """The largest difference that is accepted."""
    accuracy_before: float
    """Accuracy of the run on these images."""
    accuracy_after: float
    """Accuracy of the export on these images."""


def export_tolerance(run: Run, precision: str) -> Tolerance:
    """Return how much an export of this run in `fp32`, `fp16`, or `int8` may differ from it."""
    if precision == "int8":
        remedy = " Omit --int8: this network needs more than 8 bits."
        return Tolerance(difference=None, agreement=INT8_AGREEMENT, remedy=remedy)
    if precision == "fp16":
        remedy = " Omit --fp16: this network needs more than 16 bits."
        return Tolerance(difference=FP16_TOLERANCE, agreement=FP16_AGREEMENT, remedy=remedy)
    if run.info["precision"] == "bf16" and not run.is_openvino_bf16:
        return Tolerance(difference=BF16_TOLERANCE, agreement=0)
    is_unrounded = run.layer in {0, run.info["freeze"]["of"]}  # no map or tokens, which are stored in fp16
    return Tolerance(difference=FP32_TOLERANCE if is_unrounded else ROUNDED_TOLERANCE, agreement=0)


def compare_with_run(
    predictor: Predictor, exported: ExportedNetwork, images: ComparisonImages, advance: Advance
) -> Comparison:
    """Run both networks on the images; the export gets batches of one, two, and seven.

    Args:
        predictor: Predicts with the run's own network.
        exported: Predicts with the exported network.
        images: Pixels, resized to the input of the networks, that both process.
        advance: Called with the number of images of each batch.

    Raises:
        ArtifactError: The export cannot be run on the images.
    """
    size = predictor.model.batch_size
    batches = [images.pixels[start : start + size] for start in range(0, len(images.pixels), size)]
    of_run = list(predictor.model.map(batches))
    logits = np.concatenate([outputs.logits for outputs in of_run])
    probabilities = predictor.probabilities(logits)
    outputs = []
    for batch in _odd_batches(images.pixels):
        with library_errors(f"the export cannot process a batch of {len(batch)} images", "Try another --format."):
            outputs.append(exported(batch))
        advance(len(batch))
    exported_logits, exported_probabilities, *novelty = (
        np.concatenate(values) for values in zip(*outputs, strict=True)
    )
    predicted, exported_predicted = logits.argmax(1), exported_logits.argmax(1)
    return Comparison(
        images=len(logits),
        held_out=images.held_out,
        max_difference=float(np.abs(exported_probabilities - probabilities).max()),
        agreement=float((predicted == exported_predicted).mean()),
        novelty_difference=_novelty_difference(predictor, of_run, logits, novelty[0]) if novelty else None,
        novelty_limit=_novelty_limit(predictor),
        accuracy_before=float((predicted == images.labels).mean()),
        accuracy_after=float((exported_predicted == images.labels).mean()),
    )


def _novelty_difference(predictor: Predictor, of_run: Sequence[Outputs], logits: Floats, novelty: Floats) -> float:
    assert predictor.novelty is not None, "only a run with novelty is exported with it"
    features = np.concatenate([outputs.features for outputs in of_run if outputs.features is not None])
    return float(np.abs(predictor.novelty(features, logits) - novelty).max())


def _novelty_limit(predictor: Predictor) -> float:
    known = 0 if predictor.novelty is None else len(predictor.novelty.known)
    return max(NOVELTY_TOLERANCE, NOVELTY_RANKS / (known + 1))


def _odd_batches(pixels: Pixels) -> Iterator[Pixels]:
    """Split images into batches of one, two, and then seven."""
    starts = [0, 1, *range(3, len(pixels), 7), len(pixels)]
    yield from (pixels[start:end] for start, end in pairwise(starts) if start < min(end, len(pixels)))


def check_comparison(comparison: Comparison, tolerance: Tolerance) -> None:
    """Refuse an export that differs too much from the run.

    Raises:
        ArtifactError: It is outside the tolerance.
    """
    summary = (
        f"On {comparison.images} images, probabilities of the export differ from the run by up to "
        f"{comparison.max_difference:.2g}, and {100 * comparison.agreement:.1f} % of predicted classes agree"
    )
    limit = 1.0 if tolerance.difference is None else tolerance.difference
    if not comparison.max_difference <= limit:  # also if it is NaN
        raise ArtifactError(f"{summary}; at most {limit:g} is accepted. Nothing was written.{tolerance.remedy}")
    found = comparison.novelty_difference
    if found is not None and not found <= comparison.novelty_limit:
        raise ArtifactError(
            f"On {comparison.images} images, the novelty differs from the run by up to {found:.2g}; at most "
            f"{comparison.novelty_limit:.2g} is accepted. Nothing was written."
        )
    if not comparison.agreement >= tolerance.agreement:
        raise ArtifactError(
            f"{summary}; at least {100 * tolerance.agreement:.0f} % is required. Nothing was written.{tolerance.remedy}"
        )
