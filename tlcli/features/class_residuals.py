"""What sets images apart from their classes: features in which the frames of a burst are alike and others differ.

Features are standardized, and the mean of their class is subtracted. The directions in which these residuals vary most
are scaled down to the level of the last of them: what many images share, such as pose and light, says little about an
object (Mu & Viswanath 2018, "All-but-the-top", remove such directions).

All of this is linear. So the features of many images are multiplied by one matrix [D, d] as they are read, which is
computed from a sample and includes a projection at random (Johnson & Lindenstrauss 1984).

Shapes: N images, D features, n images of the sample, k classes, P directions that are scaled down, d dimensions: D if N
is at most `SAMPLE`, and else `PROJECTED`, or D if that is less.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tlcli.features.neighbors import BLOCK, Read
from tlcli.features.principal_directions import principal_directions

SAMPLE = 4096
"""Images of the sample, at most. Features of so few images are not projected."""
SAMPLED_BLOCKS = 16
"""Blocks of images that the sample is from."""
PROJECTED = 128
"""Dimensions after projection, which changes a similarity by about 0.09."""
SHRINKAGE = 2
"""Class means count as if they included this many images at the mean of all images."""
FLATTENED = 64
"""Directions that are scaled down, at most. There is at most one for 32 images, because more would tell objects apart,
and one for eight features."""
MIN_STD = 0.05
"""Fraction of the mean standard deviation that is added to each, so that constant features are not amplified."""


def class_residuals(read: Read, labels: npt.NDArray[np.integer], device: str) -> Tensor:
    """Return what sets each image apart from its class: float32 [N, d], of length 1, on the device.

    Args:
        read: Reads features; called twice for the same images.
        labels: int [N], the classes.
        device: The device to compute on: `cpu` or a CUDA device.
    """
    count = len(labels)
    label = torch.from_numpy(labels.astype(np.int64)).to(device)
    sample, rows = _sample(read, count, device)
    _subtract_class_means(sample, torch.unique(label[rows], return_inverse=True)[1])  # there may be many other classes
    std = sample.square().mean(dim=0).sqrt()
    scale = 1 / (std + MIN_STD * std.mean()).clamp_min(1e-30)
    sample = torch.nn.functional.normalize(sample.mul_(scale), dim=1)
    basis, factors = _common_directions(sample)
    if count <= SAMPLE:
        return torch.nn.functional.normalize(sample + ((sample @ basis) * (factors - 1)) @ basis.T, dim=1)
    axes = _projection(len(scale)).to(device)
    axes = scale[:, None] * (axes + basis @ ((factors - 1)[:, None] * (basis.T @ axes)))
    residuals = torch.empty(count, axes.shape[1], device=device)
    for start in range(0, count, BLOCK):
        block = torch.from_numpy(read(start, min(start + BLOCK, count))).to(device)
        torch.mm(block, axes, out=residuals[start : start + BLOCK])
    _subtract_class_means(residuals, label)
    for some in torch.split(residuals, BLOCK):
        torch.nn.functional.normalize(some, dim=1, out=some)
    return residuals


def chance_similarity(residuals: Tensor, labels: npt.NDArray[np.integer]) -> float:
    """Return the root mean square similarity of images of different classes, of a sample; 0 if there is one class."""
    sample = np.linspace(0, len(labels) - 1, min(SAMPLE // 4, len(labels))).astype(np.int64)
    rows, classes = residuals[torch.from_numpy(sample)], torch.from_numpy(labels[sample]).to(residuals.device)
    similarities = (rows @ rows.T)[classes[:, None] != classes]
    return float(similarities.square().mean().sqrt()) if len(similarities) else 0.0


def _sample(read: Read, count: int, device: str) -> tuple[Tensor, Tensor]:
    """Return the features float32 [n, D] and the positions int64 [n] of up to `SAMPLE` images, of all parts of N."""
    starts = range(0, count, max(BLOCK, count // SAMPLED_BLOCKS))
    each = -(-SAMPLE // len(starts))
    rows, features = [], []
    for start in starts:
        block = torch.from_numpy(read(start, min(start + BLOCK, count)))
        taken = torch.linspace(0, len(block) - 1, min(each, len(block))).long()
        rows.append(start + taken)
        features.append(block[taken])
    return torch.cat(features).to(device), torch.cat(rows).to(device)


def _subtract_class_means(features: Tensor, labels: Tensor) -> None:
    """Subtract the mean of its class, of labels [N], from each row of features [N, D], in place."""
    sums = torch.zeros(int(labels.max()) + 1, features.shape[1], dtype=torch.float64, device=features.device)
    blocks = list(zip(torch.split(features, BLOCK), torch.split(labels, BLOCK), strict=True))
    for some, own in blocks:
        sums.index_add_(0, own, some.double())
    counts = torch.bincount(labels, minlength=len(sums))[:, None]
    means = ((sums + SHRINKAGE * sums.sum(dim=0) / len(features)) / (counts + SHRINKAGE)).float()
    for some, own in blocks:
        some.sub_(means[own])


def _common_directions(sample: Tensor) -> tuple[Tensor, Tensor]:
    """Return the principal directions of residuals [n, D], float32 [D, P], and by what to scale them, float32 [P]."""
    count, dimensions = sample.shape
    number = min(FLATTENED, count // 32, dimensions // 8)
    if number < 2:  # nothing to scale down
        return sample.new_zeros(dimensions, 0), sample.new_zeros(0)
    centered = sample.nan_to_num()
    centered = centered - centered.mean(dim=0)
    basis = principal_directions(centered, number)
    values, rotation = torch.linalg.eigh(basis.T @ (centered.T @ (centered @ basis)))
    deviations = values.clamp_min(0).sqrt()  # ascending
    return basis @ rotation, torch.where(deviations > 0, deviations[0] / deviations.clamp_min(1e-30), 1.0)


def _projection(dimensions: int) -> Tensor:
    """Return random orthonormal axes, float32 [D, d], or all axes if there are few."""
    if dimensions <= PROJECTED:
        return torch.eye(dimensions)
    generator = torch.Generator().manual_seed(0)
    axes: Tensor = torch.linalg.qr(torch.randn(dimensions, PROJECTED, generator=generator)).Q
    return axes
