"""The rows that each fold of a cross-validation is fitted on, and the logits of those that it holds out.

Shapes: N images, D features, k classes, M evaluated images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.head.softmax_regression import SoftmaxHead
from tlcli.training.head.standardization import Rows, read_blocks

LabeledFeatures = tuple[Tensor | Rows, Tensor]
"""Features float32 [N, D], in memory or streamed row by row, and labels int64 [N]."""


def fold_weightings(
    labels: Tensor, folds: NDArray[np.integer], *, classes: int, weighting: ClassWeighting
) -> tuple[list[Tensor], list[Tensor], NDArray[np.bool_]]:
    """Weight the rows for the fit of each fold; the arguments are those of `l2_selection.select_folds`.

    Returns:
        For each fold that leaves other rows, the rows that it holds out, bool [N]; for each, the weights of the rows in
        its fit, float32 [N], 0 for held-out rows; and the rows, bool [N], whose class all heads without them know.
    """
    counts = torch.bincount(labels, minlength=classes)
    held_out: list[Tensor] = []
    weightings: list[Tensor] = []
    seen, unknown = np.zeros((2, len(labels)), dtype=bool)
    for out in (
        torch.from_numpy(division == fold)
        for division in np.atleast_2d(folds)
        for fold in np.unique(division[division >= 0])
    ):
        rest = labels[~out]
        if len(rest) == 0:
            continue
        rest_counts = torch.bincount(rest, minlength=classes)
        weights = weighting.row_weights(rest, classes, counts)
        weightings.append(torch.zeros(len(labels)).masked_scatter_(~out, weights))
        held_out.append(out)
        seen |= out.numpy()
        unknown |= (out & (rest_counts[labels] == 0)).numpy()
    return held_out, weightings, seen & ~unknown


def out_of_fold_logits(
    features: Tensor | Rows, heads: Sequence[SoftmaxHead], held_out: Sequence[Tensor], count: int
) -> NDArray[np.float32]:
    """Return the mean logits [M, k] of the first M rows by the heads of the folds that held them out; 0 if none did.

    Args:
        features: float32 [N, D].
        heads: The heads of the folds.
        held_out: bool [M] for each head, its held-out rows.
        count: Number M of rows, the first ones, to compute logits of.
    """
    logits = torch.zeros(count, len(heads[0].bias))
    blocks = [(slice(None), features[:count])] if isinstance(features, Tensor) else read_blocks(features)
    for at, block in blocks:
        for out, head in zip(held_out, heads, strict=True):
            mine = out[at]
            logits[at][mine] += head.logits(block[: len(mine)][mine])
    return logits.div_(torch.stack(list(held_out)).sum(dim=0).clamp_min(1)[:, None]).numpy()
