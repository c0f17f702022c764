"""The scale of features, and the coordinates in which a head is fitted, from statistics of its rows.

Shapes: N images, D features, r <= D coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlcli.errors import DataError

SCALE_SHRINKAGE = 0.5
"""Weight of the median variance in the variance that scales a feature, with `MANY_IMAGES` or more: features that vary
most are still worth more than others."""
MANY_IMAGES = 400
"""Below, the weight grows in proportion to the missing images, up to 1: variances of few images are noise."""


def scale_shrinkage(count: int) -> float:
    """Return the weight of the median variance with so many images."""
    return 1 - (1 - SCALE_SHRINKAGE) * min(1.0, count / MANY_IMAGES)


def scale_of(mean: Tensor, std: Tensor, count: int) -> Tensor:
    """Return what to divide centered features by, float64 [D]; infinity for a constant feature.

    Variances are shrunk to their median (Opgen-Rhein & Strimmer 2007), by a weight that depends only on the number of
    images. The scaled features have variance 1 on average.

    Args:
        mean: [D], the means of the features.
        std: [D], their standard deviations.
        count: Number of images that these are of.

    Raises:
        DataError: a feature is NaN or infinite.
    """
    if not torch.isfinite(std).all():
        raise DataError(
            f"{int((~torch.isfinite(std)).sum())} of {len(std)} features hold NaN or infinity, so no head can be "
            "fitted. Check the weights of the backbone, or use --precision fp32."
        )
    # A feature that float32 cannot tell from a constant would be noise scaled up to variance 1.
    varying = std > 1e-6 * mean.abs() + 1e-30
    scale = torch.full_like(std, float("inf"), dtype=torch.float64)
    variances = std[varying].double().square()
    if len(variances):
        shrunk = torch.lerp(variances, variances.median(), scale_shrinkage(count))
        scale[varying] = (shrunk * (variances / shrunk).mean()).sqrt()
    return scale


def axes_of(rows: Tensor, labels: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the coordinates to optimize in: the eigenvectors of the covariance within classes.

    Args:
        rows: float32 [N, r], centered.
        labels: int64 [N].
        width: Number of features D; rows have no covariance within classes in the other D - r directions.

    Returns:
        Axes as columns [r, r], and for each coordinate and the ones, float32 [r + 1], the variance, and the variance
        within classes relative to the average of all features (1 if no class varies, 0 for the ones).
    """
    labels = labels.to(rows.device)
    counts = torch.bincount(labels)
    sums = rows.new_zeros(len(counts), rows.shape[1]).index_add_(0, labels, rows)
    scatter = rows.T @ rows
    within, axes = _eigh(scatter - sums.T @ (sums / counts.clamp_min(1)[:, None]))
    variances = ((scatter @ axes) * axes).sum(dim=0) / len(rows)
    within = within.clamp_min(0)
    average = within.sum() / width
    varies = len(rows) > int((counts > 0).sum()) and bool(average > 0)
    relative = within / average if varies else torch.ones_like(within)
    one, zero = rows.new_ones(1), rows.new_zeros(1)
    return axes, torch.cat([variances, one]), torch.cat([relative, zero])


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors; float32 does not converge for some matrices with many zero eigenvalues."""
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        values, vectors = torch.linalg.eigh(matrix.double())
    return values.to(matrix.dtype), vectors.to(matrix.dtype)
