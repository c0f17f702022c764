"""Find images that belong together, such as the frames of a burst, by the features that training uses anyway.

Two images of one class are linked if their features are much more alike than those of either image and the images
around it. Features are standardized, and the mean of their class is subtracted, so what is compared is what sets an
image apart from its class. The directions in which these residuals vary most are scaled down to the level of the last
of them: what many images share, such as pose and light, says little about an object (Mu & Viswanath 2018, "All-but-the-
top", remove such directions). The similarity of an image to its 30th nearest neighbor is its background, which is
subtracted as well (Conneau et al. 2018, "Word translation without parallel data", call this cross-domain similarity
local scaling). Otherwise, classes of similar objects, such as white shoes, would become giant groups.

Unrelated images have few links. If links are frequent, as in bursts, images without a link are likely to be frames as
well, so a smaller gap suffices, and each image is linked to its nearest neighbor. For the choice of the constants, see
benchmarks/RESULTS.md.

Shapes: N images, D features, k classes, n images of a class, d <= D dimensions after projection, M links.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from tlcli.features.neighbors import BLOCK, Read
from tlcli.features.principal_directions import principal_directions

MIN_GAP = 0.5
"""Similarity above the background of both images that links them."""
MANY, NOTABLE_GAP = 0.1, 0.4
"""Images are bursts if more than a tenth of them have a neighbor with such a gap; in classes that are too small for a
background, with `MIN_GAP`."""
MIN_GAP_IN_BURSTS, MIN_GAP_OF_NEAREST = 0.35, 0.15
"""Gaps that link two images in bursts, any two and nearest neighbors."""
NEAR_COPY = 0.7
"""Similarity that links two images whatever their background, such as the frames of a long video."""
BACKGROUND_RANK = 30
MIN_BACKGROUND = 0.05
"""The least background to subtract unless there are bursts: in small classes, the 30th nearest neighbor is far."""
SHRINKAGE = 2
"""Class means count as if they included this many images at the mean of all images."""
FLATTENED = 64
"""Directions that are scaled down, at most: one for 32 images, or they would be those that tell objects apart, and one
for eight features."""
SAMPLE = 4096
"""Images that these directions are computed from, at most."""
MIN_STD = 0.05
"""Fraction of the mean standard deviation that is added to each, so that constant features are not amplified."""
WHOLE = 20_000
PROJECTED = 256
"""Features of more than `WHOLE` images are projected to `PROJECTED` dimensions at random, which changes a similarity by
about 0.06 (Johnson & Lindenstrauss 1984)."""
MAX_CHANCE = 0.2
"""Root mean square similarity of images of different classes above which features have too few dimensions to recognize
an image. It is 0.08 to 0.12 for EfficientNet-Lite0, and 0.3 to 0.4 for an untrained LeNet-5."""
CELL = 1024
"""Classes with more than four times as many images are divided into cells of about this size."""
LARGEST_SHARE = 0.5
"""Share of the images above which a group is divided at its weakest links: little could be held out."""


@dataclass(frozen=True, kw_only=True)
class SimilarImages:
    """Links between images that belong together."""

    pairs: npt.NDArray[np.int64]
    """[M, 2], indices of images."""
    gaps: npt.NDArray[np.float32]
    """[M], similarity above the background."""
    similarities: npt.NDArray[np.float32]
    """[M], cosines."""
    bursts: bool
    """Whether many images have a link."""

    def groups(self, among: npt.NDArray[np.bool_]) -> list[list[int]]:
        """Return the groups of two or more images, connected by links.

        Args:
            among: bool [N], the images to group.
        """
        links = among[self.pairs].all(axis=1)
        pairs, gaps = self.pairs[links], self.gaps[links]
        largest = max(2.0, LARGEST_SHARE * among.sum())
        while True:
            component = _components(len(among), pairs)
            too_large = np.bincount(component) > largest
            if not too_large.any():
                break
            within = too_large[component[pairs[:, 0]]]
            kept = ~within | (gaps > np.median(gaps[within]))
            pairs, gaps = pairs[kept], gaps[kept]
        linked = np.unique(pairs)
        order = linked[np.argsort(component[linked], kind="stable")]
        starts = np.flatnonzero(np.diff(component[order])) + 1
        return [group.tolist() for group in np.split(order, starts) if len(group)]

    def near_copies(self, train: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Return the images outside of train that are nearly the same as a training image: in bursts, its frames.

        Args:
            train: bool [N], the training images.
        """
        certain = self.similarities > NEAR_COPY
        if self.bursts:
            certain |= self.gaps > MIN_GAP
        pairs = self.pairs[certain]
        crossing = pairs[train[pairs].sum(axis=1) == 1]
        return np.unique(crossing[~train[crossing]])


_NONE = SimilarImages(
    pairs=np.zeros((0, 2), np.int64), gaps=np.zeros(0, np.float32), similarities=np.zeros(0, np.float32), bursts=False
)


def find_similar_images(
    read: Read, labels: npt.NDArray[np.integer], *, has_groups: bool = False, device: str = "cpu"
) -> SimilarImages:
    """Link images of one class that belong together.

    Args:
        read: Reads features; called several times for the same images.
        labels: int [N], the classes.
        has_groups: Whether the user named groups. Bursts are then among these, and a false link would join two of them.
        device: The device to compute on: `cpu` or a CUDA device.
    """
    count = len(labels)
    if not count:
        return _NONE
    residuals = _class_residuals(read, labels, device)
    if _chance_similarity(residuals, labels) > MAX_CHANCE:
        return _NONE
    _flatten(residuals)
    background = np.zeros(count, np.float32)
    candidates = [(np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for cell in _cells(residuals, labels):
        keys, values, background_in_cell = _nearest(residuals, labels, cell)
        background[cell] = np.maximum(background[cell], background_in_cell)
        candidates.append((keys, values))
    keys, first = np.unique(np.concatenate([keys for keys, _ in candidates]), return_index=True)
    similarities = np.concatenate([values for _, values in candidates])[first]
    pairs = np.stack(np.divmod(keys, count), axis=1)
    gaps = similarities - background[pairs].mean(axis=1)
    sure_gaps = similarities - np.maximum(background, MIN_BACKGROUND)[pairs].mean(axis=1)
    near_copies = similarities > NEAR_COPY
    linked = (sure_gaps > MIN_GAP) | near_copies
    has_background = np.bincount(labels)[labels[pairs[:, 0]]] > BACKGROUND_RANK
    notable = sure_gaps > np.where(has_background, NOTABLE_GAP, MIN_GAP)
    bursts = len(np.unique(pairs[notable | near_copies])) > MANY * count
    if bursts and not has_groups:
        linked |= (gaps > MIN_GAP_IN_BURSTS) | ((gaps > MIN_GAP_OF_NEAREST) & _are_nearest(pairs, gaps, count))
    return SimilarImages(pairs=pairs[linked], gaps=gaps[linked], similarities=similarities[linked], bursts=bursts)


def _class_residuals(read: Read, labels: npt.NDArray[np.integer], device: str) -> Tensor:
    """Return what sets each image apart from its class: float32 [N, d], of length 1, on the device."""
    count, classes = len(labels), int(labels.max()) + 1
    label = torch.from_numpy(labels.astype(np.int64))
    dimensions = read(0, 1).shape[1]
    sums, squares = torch.zeros(classes, dimensions).double(), torch.zeros(dimensions).double()
    for start in range(0, count, BLOCK):
        block = torch.from_numpy(read(start, min(start + BLOCK, count))).double()
        sums.index_add_(0, label[start : start + BLOCK], block)
        squares += block.square().sum(dim=0)
    counts = torch.bincount(label, minlength=classes)[:, None].double()
    mean = sums.sum(dim=0) / count
    centers = (sums + SHRINKAGE * mean) / (counts + SHRINKAGE)
    variance = (squares - (2 * centers * sums - counts * centers.square()).sum(dim=0)).clamp_min(0) / count
    std = variance.sqrt()
    scale = (1 / (std + MIN_STD * std.mean()).clamp_min(1e-30)).float().to(device)
    centers = centers.float().to(device)
    axes = _projection(len(mean)).to(device) if count > WHOLE and len(mean) > PROJECTED else None
    residuals = torch.empty(count, len(mean) if axes is None else PROJECTED, device=device)
    for start in range(0, count, BLOCK):
        block = torch.from_numpy(read(start, min(start + BLOCK, count))).to(device)
        apart = (block - centers[label[start : start + BLOCK].to(device)]) * scale
        residuals[start : start + BLOCK] = torch.nn.functional.normalize(apart if axes is None else apart @ axes, dim=1)
    return residuals


def _flatten(residuals: Tensor) -> None:
    """Scale the principal directions of residuals [N, d] down to the deviation of the last of them, in place."""
    count, dimensions = residuals.shape
    number = min(FLATTENED, count // 32, dimensions // 8)
    if number < 2:  # nothing to scale down
        return
    rows = torch.linspace(0, count - 1, min(SAMPLE, count)).long().to(residuals.device)
    sample = residuals[rows].nan_to_num()
    center = sample.mean(dim=0)
    basis = principal_directions(sample - center, number)
    _, deviations, rotation = torch.linalg.svd((sample - center) @ basis, full_matrices=False)
    basis = basis @ rotation.T
    factors = torch.where(deviations > 0, deviations[-1] / deviations.clamp_min(1e-30), 1.0)
    for start in range(0, count, BLOCK):
        apart = residuals[start : start + BLOCK] - center
        apart += ((apart @ basis) * (factors - 1)) @ basis.T
        residuals[start : start + BLOCK] = torch.nn.functional.normalize(apart, dim=1)


def _are_nearest(pairs: npt.NDArray[np.int64], gaps: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.bool_]:
    """Return whether a pair has the largest gap of one of its images: bool [M]."""
    largest = np.full(count, -np.inf, np.float32)
    np.maximum.at(largest, pairs.ravel(), gaps.repeat(2))
    found: npt.NDArray[np.bool_] = (largest[pairs] == gaps[:, None]).any(axis=1)
    return found


def _projection(dimensions: int) -> Tensor:
    """Return random orthonormal axes: float32 [D, PROJECTED]."""
    generator = torch.Generator().manual_seed(0)
    axes: Tensor = torch.linalg.qr(torch.randn(dimensions, PROJECTED, generator=generator)).Q
    return axes


def _chance_similarity(residuals: Tensor, labels: npt.NDArray[np.integer]) -> float:
    """Return the root mean square similarity of images of different classes, of a sample; 0 if there is one class."""
    sample = np.linspace(0, len(labels) - 1, min(CELL, len(labels))).astype(np.int64)
    rows, classes = residuals[torch.from_numpy(sample)], torch.from_numpy(labels[sample]).to(residuals.device)
    similarities = (rows @ rows.T)[classes[:, None] != classes]
    return float(similarities.square().mean().sqrt()) if len(similarities) else 0.0


def _cells(residuals: Tensor, labels: npt.NDArray[np.integer]) -> Iterator[npt.NDArray[np.int64]]:
    """Divide the images into cells within which all are compared: several small classes, a class, or a part of one.

    Large classes are divided into overlapping cells: each image is in those of its two nearest centers. This makes the
    cost proportional to N, and loses links between images without a common cell.
    """
    order = np.argsort(labels, kind="stable")
    small: list[npt.NDArray[np.int64]] = []
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(members) > 4 * CELL:
            yield from _cells_of_class(residuals, members)
            continue
        if sum(map(len, small)) + len(members) > CELL and small:
            yield np.concatenate(small)
            small = []
        small.append(members)
    if small:
        yield np.concatenate(small)


def _cells_of_class(residuals: Tensor, members: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    rows = torch.from_numpy(members)
    centers = residuals[rows[:: CELL // 2]].T
    nearest = torch.cat([(residuals[some] @ centers).topk(2, dim=1).indices for some in torch.split(rows, BLOCK)])
    by_center = torch.argsort(nearest.flatten(), stable=True).cpu().numpy()
    sizes = torch.bincount(nearest.flatten(), minlength=centers.shape[1]).cumsum(dim=0)[:-1].cpu().numpy()
    yield from np.split(members[by_center // 2], sizes)


def _nearest(
    residuals: Tensor, labels: npt.NDArray[np.integer], cell: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Find the nearest neighbors of the images of a cell within their classes.

    Returns:
        Pairs that may be linked, as int64 [M], lower index * N + higher index; their similarities; and the background
        of each image of the cell.
    """
    others = residuals[torch.from_numpy(cell)]
    classes = torch.from_numpy(labels[cell]).to(others.device)
    most = min(BACKGROUND_RANK + 1, len(cell))
    found = []
    for rows, own in zip(torch.split(others, BLOCK), torch.split(classes, BLOCK), strict=True):
        similarities = (rows @ others.T).masked_fill_(own[:, None] != classes, -torch.inf)
        found.append(similarities.topk(most, dim=1))
    values = torch.cat([top.values for top in found]).cpu().numpy()
    neighbors = cell[torch.cat([top.indices for top in found]).cpu().numpy()]
    background = values[:, -1] if most > BACKGROUND_RANK else np.zeros(len(cell), np.float32)
    near = values > MIN_GAP_IN_BURSTS
    near[:, :2] |= values[:, :2] > MIN_GAP_OF_NEAREST  # the image itself, and its nearest neighbor
    row, column = np.nonzero(near & (neighbors != cell[:, None]))
    ends = np.sort(np.stack([cell[row], neighbors[row, column]]), axis=0)
    keys, first = np.unique(ends[0] * len(labels) + ends[1], return_index=True)
    return keys, values[row, column][first], background


def _components(count: int, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    component: npt.NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return component
