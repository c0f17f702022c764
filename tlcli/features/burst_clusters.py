"""Cluster the frames of bursts: merge the images, and then the clusters, that are more alike than unrelated ones.

Single frames of an object can be less alike than images of two objects, but the mean of some of its frames is not: what
differs from frame to frame, such as light and pose, cancels out. So two clusters are compared by their mean similarity
above the background, as a fraction of how alike the images of each are. For single images, that is their gap; large
clusters of an object merge at a smaller one.

Shapes: N images, d dimensions, M pairs, K clusters, E edges between clusters.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from tlcli.features.neighbors import BLOCK

MIN_LIKENESS = 0.3
"""Least likeness of two clusters that are merged."""


def connected(count: int, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the number of the connected component of each of `count` nodes: int64 [count]."""
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    component: npt.NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return component


def burst_clusters(
    residuals: Tensor,
    backgrounds: npt.NDArray[np.float32],
    pairs: npt.NDArray[np.int64],
    linked: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int64]:
    """Merge each two clusters that are more like each other than like any third one, until none are alike.

    Args:
        residuals: float32 [N, d], of length 1, on any device.
        backgrounds: [N], similarity of each image to unrelated ones.
        pairs: [M, 2], images that may belong together. Clusters without a pair are never merged.
        linked: bool [M], the pairs that surely belong together.

    Returns:
        The cluster of each image: int64 [N].
    """
    clusters = connected(len(residuals), pairs[linked])
    while True:
        edges = _edges(clusters, pairs)
        likeness = _likeness(residuals, backgrounds, clusters, edges)
        edges, likeness = edges[likeness > MIN_LIKENESS], likeness[likeness > MIN_LIKENESS]
        if not len(edges):
            return clusters
        highest = np.zeros(clusters.max() + 1, np.float32)
        np.maximum.at(highest, edges.ravel(), likeness.repeat(2))
        mutual = (highest[edges] == likeness[:, None]).all(axis=1)
        clusters = connected(len(highest), edges[mutual])[clusters]


def _edges(clusters: npt.NDArray[np.int64], pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the pairs of different clusters that some pair of images connects: [E, 2]."""
    low, high = np.sort(clusters[pairs[clusters[pairs[:, 0]] != clusters[pairs[:, 1]]]], axis=1).T
    count = len(clusters)
    return np.stack(np.divmod(np.unique(low * count + high), count), axis=1)


def _likeness(
    residuals: Tensor,
    backgrounds: npt.NDArray[np.float32],
    clusters: npt.NDArray[np.int64],
    edges: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Return how alike the clusters of each edge [E, 2] are: float32 [E]."""
    cluster, sizes = torch.from_numpy(clusters).to(residuals.device), np.bincount(clusters)
    means = torch.zeros(len(sizes), residuals.shape[1], device=residuals.device).index_add_(0, cluster, residuals)
    means /= torch.from_numpy(sizes.astype(np.float32)).to(residuals.device)[:, None]
    background = np.bincount(clusters, backgrounds) / sizes
    within = means.square().sum(dim=1).cpu().numpy()
    found = np.empty(len(edges), np.float32)
    for start in range(0, len(edges), BLOCK):
        low, high = edges[start : start + BLOCK].T
        similarity = (means[low] * means[high]).sum(dim=1).cpu().numpy()
        gap = similarity - (background[low] + background[high]) / 2
        found[start : start + BLOCK] = gap / (within[low] * within[high])
    return found
