"""Pairs of images of one class that are more alike than either image and those around it, and how surprising that is.

The similarity of an image to its 30th nearest neighbor is its background, which is subtracted (Conneau et al. 2018,
"Word translation without parallel data", call this cross-domain similarity local scaling). Otherwise, classes of
similar objects, such as white shoes, would become giant groups.

If images vary in few ways, such as handwritten digits, the nearest of many are much more alike than others, although
each is an object of its own. In a smooth cloud of m dimensions, the distance to the k-th neighbor grows with k^(1/m).
This gives m (Levina & Bickel 2004, "Maximum likelihood estimation of intrinsic dimension") and, from the distance to a
far neighbor, how many images are expected to be as near as another. The distance of far neighbors is the geometric mean
of those of both images (Zelnik-Manor & Perona 2004, "Self-tuning spectral clustering"). Bursts are no smooth cloud:
hardly any images are expected to be as near as their frames.

Shapes: N images, d dimensions, n images of a class or cell, K neighbors, M pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tlcli.features.neighbors import BLOCK

BACKGROUND_RANK = 30
"""Rank of the neighbor whose similarity is the background; smaller classes have none, or 0."""
MIN_BACKGROUND = 0.05
"""The least background for sure gaps: in small classes, the 30th nearest neighbor is far."""
FAR, FARTHEST = 4, 128
"""The rank of the far neighbor is a fourth of the size of the class, at least `BACKGROUND_RANK` and at most `FARTHEST`,
but at most half of the class: beyond the frames of a burst, yet not as far as all images."""
FEW = 8
"""Smaller classes have no far neighbor. In classes without a background, its similarity is at most 0."""
MIN_DIMENSIONS = 8
"""Lower bound of the dimensions of a cloud. Videos have fewer, because their frames lie on a line, but are no cloud."""
COMPARED = 2048
"""Classes with more images are divided into cells."""
CELL, DIVISIONS = 256, 3
"""Images of a cell, about, and how many times a class is divided, because each time, links between cells are lost."""


@dataclass(frozen=True, kw_only=True)
class LookAlikes:
    """Pairs of images of one class."""

    keys: npt.NDArray[np.int64]
    """[M], lower index * N + higher index, sorted."""
    similarities: npt.NDArray[np.float32]
    """[M], cosines."""
    gaps: npt.NDArray[np.float32]
    """[M], similarities above the background."""
    sure_gaps: npt.NDArray[np.float32]
    """[M], similarities above the background or `MIN_BACKGROUND`."""
    ranks: npt.NDArray[np.float32]
    """[M], mean ranks of the far neighbors; 0 in classes that are too small for them."""
    distances: npt.NDArray[np.float32]
    """[M], logarithms of the distance as a fraction of that of the far neighbors."""
    images: npt.NDArray[np.int64]
    """[n'], indices of all images; those of large classes several times."""
    backgrounds: npt.NDArray[np.float32]
    """[n'], their similarity to unrelated images."""
    growth: npt.NDArray[np.float32]
    """Of each image with a far neighbor, logarithm of how much farther it is than the neighbor of half its rank."""

    @classmethod
    def joined(cls, parts: Iterable[LookAlikes]) -> LookAlikes:
        """Join parts. A pair that is in several is taken from the first."""
        every = [_NOTHING, *parts]
        columns = {field.name: np.concatenate([getattr(part, field.name) for part in every]) for field in fields(cls)}
        of_images = {name: columns.pop(name) for name in ("images", "backgrounds", "growth")}
        first = np.unique(columns["keys"], return_index=True)[1]
        return cls(**of_images, **{name: values[first] for name, values in columns.items()})

    def expected(self) -> npt.NDArray[np.float32]:
        """Return how many images would be as near if classes were smooth: float32 [M]; 0 in very small classes."""
        growth = float(np.median(self.growth)) if len(self.growth) else 0.0
        dimensions = max(MIN_DIMENSIONS, math.log(2) / max(growth, 1e-3))
        found: npt.NDArray[np.float32] = self.ranks * np.exp(dimensions * np.minimum(self.distances, 0))
        return found


_INDICES, _VALUES = np.zeros(0, np.int64), np.zeros(0, np.float32)
_NOTHING = LookAlikes(
    keys=_INDICES,
    similarities=_VALUES,
    gaps=_VALUES,
    sure_gaps=_VALUES,
    ranks=_VALUES,
    distances=_VALUES,
    images=_INDICES,
    backgrounds=_VALUES,
    growth=_VALUES,
)


def find_look_alikes(
    residuals: Tensor, labels: npt.NDArray[np.integer], *, least: float, near_copy: float
) -> LookAlikes:
    """Find pairs with large gaps within classes.

    Args:
        residuals: float32 [N, d], of length 1, on any device.
        labels: int [N], the classes.
        least: Least gap of a pair.
        near_copy: Similarity above which a pair needs no gap.
    """

    def compare(cell: npt.NDArray[np.int64]) -> LookAlikes:
        return _compare(residuals, labels, cell, least=least, near_copy=near_copy)

    order = np.argsort(labels, kind="stable")
    classes = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    found = [LookAlikes.joined(map(compare, _whole([members for members in classes if len(members) <= COMPARED])))]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of each thread of the pool: cells are small
    try:
        with ThreadPoolExecutor(threads) as pool:
            for members in classes:
                if len(members) > COMPARED:
                    found.append(LookAlikes.joined(pool.map(compare, _cells(residuals, members))))
    finally:
        torch.set_num_threads(threads)
    return LookAlikes.joined(found)


def _whole(classes: Iterable[npt.NDArray[np.int64]]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the images of several small classes, or of one class."""
    joined: list[npt.NDArray[np.int64]] = []
    for members in classes:
        if joined and sum(map(len, joined)) + len(members) > CELL:
            yield np.concatenate(joined)
            joined = []
        joined.append(members)
    if joined:
        yield np.concatenate(joined)


def _cells(residuals: Tensor, members: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Divide a large class several times: into the images that are nearest to each of some random images.

    This makes the cost proportional to N, and loses the links between images that never share a cell.
    """
    rows = torch.from_numpy(members).to(residuals.device)
    generator = torch.Generator().manual_seed(0)
    for _ in range(DIVISIONS):
        centers = residuals[rows[torch.randperm(len(rows), generator=generator)[: len(rows) // CELL].to(rows.device)]].T
        nearest = torch.cat([(residuals[some] @ centers).max(dim=1).indices for some in torch.split(rows, BLOCK)]).cpu()
        order = torch.argsort(nearest, stable=True).numpy()
        for cell in np.split(members[order], torch.bincount(nearest).cumsum(dim=0)[:-1].numpy()):
            yield from filter(len, np.array_split(cell, max(1, -(-len(cell) // COMPARED))))


def _compare(
    residuals: Tensor,
    labels: npt.NDArray[np.integer],
    cell: npt.NDArray[np.int64],
    *,
    least: float,
    near_copy: float,
) -> LookAlikes:
    """Compare the images of a cell within classes; the arguments are those of `find_look_alikes`."""
    counts = np.bincount(labels[cell])[labels[cell]]
    has_background = counts > BACKGROUND_RANK
    far = np.clip(counts // FAR, BACKGROUND_RANK, FARTHEST)
    far = np.minimum(counts // 2, far) // 2 * 2 * (counts >= FEW)
    most = min(max(int(far.max()), BACKGROUND_RANK) + 1, len(cell))
    similarities, neighbors = _neighbors(residuals, labels, cell, most)
    every = np.arange(len(cell))
    background = np.where(has_background, similarities[:, min(BACKGROUND_RANK, most - 1)], np.float32(0))
    grown = _log_distances(similarities[every, far])
    reach = np.where(has_background, grown, np.maximum(grown, _log_distances(np.zeros_like(grown))))
    nearest = similarities[:, : BACKGROUND_RANK + 1]
    gaps = nearest - np.maximum(background, 0)[:, None]
    near = (gaps > least) | (nearest > near_copy)
    near[:, 0] = False  # the image itself
    row, column = np.nonzero(near)
    similarity, other = similarities[row, column], neighbors[row, column]
    ends = row, other
    low, high = np.sort(np.stack([cell[row], cell[other]]), axis=0)
    sure = np.maximum(background, np.float32(MIN_BACKGROUND))
    return LookAlikes(
        keys=low * len(labels) + high,
        similarities=similarity,
        gaps=similarity - _mean(background, ends),
        sure_gaps=similarity - _mean(sure, ends),
        ranks=_mean(far, ends),
        distances=_log_distances(similarity) - _mean(reach, ends),
        images=cell,
        backgrounds=np.maximum(background, 0),
        growth=(grown - _log_distances(similarities[every, far // 2]))[counts >= FEW],
    )


def _neighbors(
    residuals: Tensor, labels: npt.NDArray[np.integer], cell: npt.NDArray[np.int64], most: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the similarities to the nearest images of a cell, itself first, float32 [n, K], and their positions in it.

    Images of other classes have the similarity -2.
    """
    images = residuals[torch.from_numpy(cell).to(residuals.device)]
    similarities = images @ images.T
    if (labels[cell] != labels[cell[0]]).any():
        classes = torch.from_numpy(labels[cell]).to(residuals.device)
        similarities.masked_fill_(classes[:, None] != classes, -2)
    top = similarities.fill_diagonal_(2).topk(most, dim=1)
    return top.values.cpu().numpy(), top.indices.cpu().numpy()


def _mean(
    values: npt.NDArray[Any], ends: tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]
) -> npt.NDArray[np.float32]:
    """Return the mean of the values of both images of each pair."""
    mean: npt.NDArray[np.float32] = ((values[ends[0]] + values[ends[1]]) / 2).astype(np.float32)
    return mean


def _log_distances(similarities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = (np.log(np.maximum(2 - 2 * similarities, 1e-6)) / 2).astype(np.float32)
    return found
