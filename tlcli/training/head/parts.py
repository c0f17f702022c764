"""The errors of heads that are fitted on a part of the images: the points of the learning curve.

Shapes: N images, k classes, M evaluated images, P parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlcli.datasets.splits import FEW_IMAGES, uniform_hash
from tlcli.training.head.folds import LabeledFeatures, fold_weightings, out_of_fold_logits
from tlcli.training.head.l2_selection import FittedHead, HeadOptions
from tlcli.training.head.softmax_regression import SoftmaxHead
from tlcli.training.learning_curve import PartErrors

FRACTIONS = (0.1, 0.2, 0.5)
"""Parts of the images that heads are fitted on, besides all of them."""
MOST_ROWS = 5_000
"""Rows of a part, at most; of more images, all parts are smaller."""
ENOUGH_HELD_OUT = 500
"""Images to evaluate the parts on, about: of more than `FEW_IMAGES`, not all folds are needed."""
MOST_HELD_OUT = 0.2
"""Share of the training images that are held out, at most, if there are fewer validation images."""


def order_in_class(keys: Sequence[str], labels: Sequence[int], *, seed: int) -> NDArray[np.float64]:
    """Order the images of each class by the hash of their keys.

    Returns:
        float64 [N], the share of its class before each image, so that those below a threshold are a nested, stratified
        part. Images with the same key have the same position: that of the first in its class.
    """
    counts, before = Counter(labels), Counter[int]()
    places: dict[str, float] = {}
    hashes = {key: uniform_hash(seed, f"part:{key}") for key in set(keys)}
    for key, label in sorted(zip(keys, labels, strict=True), key=lambda pair: (hashes[pair[0]], pair)):
        places.setdefault(key, before[label] / counts[label])
        before[label] += 1
    return np.array([places[key] for key in keys])


def fold_part_errors(
    train: LabeledFeatures, fitted: FittedHead, folds: NDArray[np.integer], order: NDArray[np.float64], how: HeadOptions
) -> PartErrors:
    """Evaluate the heads of parts out of fold; with many images, on some of the folds.

    Args:
        train: Features and labels of all rows, N.
        fitted: From `select_folds` on them, with its `fits`.
        folds: int [N], or [R, N], those that it was selected on.
        order: float64 [M], from `order_in_class`; the other rows are views of these.
        how: How it was fitted.
    """
    features, labels = train
    count = len(order)
    used = np.atleast_2d(folds)
    if count > FEW_IMAGES:
        sizes = np.cumsum(np.bincount(used[0][:count][used[0][:count] >= 0]))
        used = np.where(used <= np.searchsorted(sizes, ENOUGH_HELD_OUT), used, -1)
    held_out, _, seen = fold_weightings(labels, used, classes=how["classes"], weighting=how["weighting"])
    held_out, seen = [out[:count] for out in held_out], seen[:count]
    heads = list(fitted.fold_heads[: len(held_out)])
    others = [~out for out in held_out]

    def logits(found: Sequence[SoftmaxHead]) -> NDArray[np.float32]:
        return out_of_fold_logits(features, found, held_out, count)[seen]

    parts = _parts(fitted, heads, others, order, labels, how)
    everything = float(np.mean([int(rows.sum()) for rows in others])), fitted.logits[:count][seen]
    return _errors(
        [*((images, logits(found)) for images, found in parts), everything], labels[:count][torch.from_numpy(seen)]
    )


def holdout_part_errors(
    train: LabeledFeatures,
    validation: tuple[Tensor, Tensor],
    fitted: FittedHead,
    order: NDArray[np.float64],
    how: HeadOptions,
) -> PartErrors:
    """Evaluate the heads of parts on validation images, and if these are few, on held-out training images as well.

    The arguments are those of `fold_part_errors`, but for the validation images, features float32 [M', D] and labels
    int64 [M'], on which `fitted` was selected.
    """
    features, labels = train
    count, known = len(order), validation[1]
    share = min(MOST_HELD_OUT, max(0, ENOUGH_HELD_OUT - len(known)) / count)
    if FRACTIONS[-1] * len(labels) > MOST_ROWS:
        share = 0.0  # one more fit on nearly all rows would take too long
    out = torch.from_numpy(order >= 1 - share)

    def logits(heads: Sequence[SoftmaxHead]) -> NDArray[np.float32]:
        held_out = out_of_fold_logits(features, heads, [out], count)[out.numpy()]
        return np.concatenate([heads[0].logits(validation[0]).numpy(), held_out])

    heads = _fit_again(fitted, [fitted.head], [~out], labels, how) if out.any() else [fitted.head]
    parts = _parts(fitted, heads, [~out], order, labels, how)
    points = [*((images, logits(found)) for images, found in parts), (float((~out).sum()), logits(heads))]
    return _errors(points, torch.cat([known, labels[:count][out]]))


def _errors(points: Sequence[tuple[float, NDArray[np.float32]]], labels: Tensor) -> PartErrors:
    wrong = [logits.argmax(axis=1) != labels.numpy() for _, logits in points]
    return PartErrors(images=[images for images, _ in points], wrong=np.stack(wrong))


def _parts(
    fitted: FittedHead,
    heads: Sequence[SoftmaxHead],
    others: Sequence[Tensor],
    order: NDArray[np.float64],
    labels: Tensor,
    how: HeadOptions,
) -> list[tuple[float, list[SoftmaxHead]]]:
    """Fit each head on parts of its images, `others` bool [M]; return the mean number of images, and the heads."""
    copies = len(labels) // len(order)
    most = max(int(rows.sum()) for rows in others) * copies
    scale = min(1.0, MOST_ROWS / (FRACTIONS[-1] * most))
    found: list[tuple[float, list[SoftmaxHead]]] = []
    for fraction in reversed(FRACTIONS):
        chosen = torch.from_numpy(order < fraction * scale)
        rows = [chosen & mine for mine in others]
        heads = _fit_again(fitted, heads, rows, labels, how)
        found.insert(0, (float(np.mean([int(mine.sum()) for mine in rows])), heads))
    return found


def _fit_again(
    fitted: FittedHead, heads: Sequence[SoftmaxHead], images: Sequence[Tensor], labels: Tensor, how: HeadOptions
) -> list[SoftmaxHead]:
    """Fit each head on some of its images, bool [M], and their views."""
    assert fitted.fits is not None
    weightings = [_weights(labels, mine.tile(len(labels) // len(mine)), how) for mine in images]
    return fitted.fits.on_parts(heads, weightings, fitted.l2, fitted.within_weight)


def _weights(labels: Tensor, rows: Tensor, how: HeadOptions) -> Tensor:
    """Return the weights of some rows in a fit, float32 [N], 0 for the others."""
    weights = how["weighting"].row_weights(labels[rows], how["classes"])
    return torch.zeros(len(labels)).masked_scatter_(rows, weights)
