"""Which images are nearest to each other by their features, without ever holding N x N numbers.

Shapes: N images, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BLOCK = 4096
"""Images compared at a time with as many others: 64 MB of cosines."""

Read = Callable[[int, int], npt.NDArray[np.float32]]
"""Features of the images from one number up to another: float32 [stop - start, D]."""


def nearest_pairs(
    read: Read,
    count: int,
    *,
    least: float,
    most: int,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> npt.NDArray[np.int64]:
    """Pairs of images of which one is among the other's nearest, by the cosine of their features.

    Takes count^2 * D multiply-adds / 2, and memory for two blocks of features, one of cosines, and `most` per image.

    Args:
        read: Reads features; each is asked for several times.
        count: N.
        least: Cosine below which no pair counts.
        most: Neighbors of each image to look at, so that images that are all alike don't make N x N pairs.
        device: Where to compute: "cpu" or a CUDA device.
        progress: Told how many more images are done.

    Returns:
        int64 [M, 2], each pair once, the lower number first, in order; M <= most * N.
    """
    cosines = torch.full((count, most), -torch.inf)
    partners = torch.zeros((count, most), dtype=torch.int64)

    def unit(start: int) -> Tensor:
        features = torch.from_numpy(read(start, min(start + BLOCK, count))).to(device)
        return torch.nn.functional.normalize(features, dim=1)

    def keep(found: Tensor, start: int, other: int) -> None:
        """Enter cosines [n, m] of images from `start` on with those from `other` on."""
        rows = (found.amax(dim=1) >= least).nonzero().squeeze(1)
        if not len(rows):
            return
        top = found[rows].topk(min(most, found.shape[1]), dim=1)
        rows = start + rows.cpu()
        both = torch.cat([cosines[rows], top.values.cpu()], dim=1)
        who = torch.cat([partners[rows], other + top.indices.cpu()], dim=1)
        best = both.topk(most, dim=1)
        cosines[rows], partners[rows] = best.values, who.gather(1, best.indices)

    for start in range(0, count, BLOCK):
        mine = unit(start)
        for other in range(start, count, BLOCK):
            found = mine @ (mine if other == start else unit(other)).T
            if other == start:
                keep(found.fill_diagonal_(-torch.inf), start, other)
            else:
                keep(found, start, other)
                keep(found.T, other, start)
        if progress:
            progress(len(mine))
    row, column = (cosines >= least).nonzero(as_tuple=True)
    pairs = torch.stack([row, partners[row, column]], dim=1).sort(dim=1).values.numpy()
    found_once: npt.NDArray[np.int64] = np.unique(pairs, axis=0)
    return found_once
