"""Compare a head's predictions on features in bf16 with those on features in fp32, before the run is written."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tlcli.errors import UsageError
from tlcli.features.extractor import FeatureExtractor
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.head.fit import fold_divisions
from tlcli.training.head.folds import fold_weightings, out_of_fold_logits
from tlcli.training.head.l2_selection import FittedHead
from tlcli.training.precision_check import PrecisionCheck, compare_logits
from tlcli.training.usable_images import UsableImages, require_unchanged

ENOUGH_IMAGES = 300
"""Number of held-out images to compare on, at most. More would take longer than bf16 saves on small datasets."""


def check_precision(
    extractor: FeatureExtractor, images: UsableImages, fitted: FittedHead, *, weighting: ClassWeighting, seed: int
) -> PrecisionCheck | None:
    """Predict held-out images from their features in both precisions, and require that the predictions agree.

    Images are predicted by the heads that were not fitted on them: that of `fitted`, or those of its folds.

    Args:
        extractor: The network, with the features of all images.
        images: The images that the head was fitted and selected on.
        fitted: From `fit_head`, with the same `weighting` and `seed`.
        weighting: The weights of the classes.
        seed: Seed for assigning images to folds, and for choosing images to compare on.

    Returns:
        The figures; None if the network is not in OpenVINO in bf16.

    Raises:
        UsageError: The predictions differ too much, or no image can be held out.
        DataError: Images changed during training.
        MachineError: Not enough disk space or memory.
    """
    if extractor.network.precision != "bf16" or extractor.network.engine != "openvino":
        return None
    rows = images.rows("train" if images.splits.cross_validated else "validation")
    heads, held_out, known = [fitted.head], [torch.ones(len(rows), dtype=torch.bool)], np.ones(len(rows), bool)
    divisions = fold_divisions(images, rows, None, seed=seed, copies=1)
    if divisions is not None:
        labels = torch.from_numpy(images.labels(rows))
        heads = list(fitted.fold_heads)
        held_out, _, known = fold_weightings(labels, divisions, classes=images.classes, weighting=weighting)
    chosen = np.sort(np.random.default_rng(seed).permutation(np.flatnonzero(known))[:ENOUGH_IMAGES])
    compared = [rows[place] for place in chosen]
    if not compared:
        raise UsageError(
            "--engine openvino --precision bf16: no image could be held out from the others of its class, to compare "
            "with fp32. Use --precision fp32."
        )
    reference = extractor.in_fp32()
    extractor.network.report.note(f"Precision comparing bf16 with fp32 on {len(compared):,} held-out images")
    extraction = reference.extract_views(images.paths(compared), images.digests(compared), [0])
    require_unchanged(extraction, images.digests(compared))

    def logits(of: FeatureExtractor) -> NDArray[np.float32]:
        features = torch.from_numpy(of.plain.gather(images.digests(compared)))
        return out_of_fold_logits(features, heads, [out[chosen] for out in held_out], len(compared))

    check = compare_logits(logits(extractor), logits(reference), images.labels(compared))
    check.require_agreement()
    return check
