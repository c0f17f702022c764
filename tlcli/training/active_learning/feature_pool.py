"""The features of the images to label, which arrive while labeling has already begun.

Shapes: N images, n new images, D features, P directions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tlcli.features.principal_directions import principal_directions

PROJECTED = 64
"""Directions P that images are compared in, at most: the principal ones."""
SAMPLE = 4096
"""Images that the center and the directions are computed from, at most."""
GROWTH = 1.5
"""Center and directions are computed again when there are this many times as many images."""
BLOCK = 8192

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class FeaturePool:
    """Features by row, in the order in which images were added.

    Args:
        dimensions: Number of features D.
    """

    def __init__(self, dimensions: int) -> None:
        self.count = 0
        self.version = 0
        """Changes when the directions of all images change."""
        self._features = np.empty((0, dimensions), np.float32)
        self._directions = np.empty((0, min(PROJECTED, dimensions)), np.float32)
        self._ids = np.empty(0, np.int64)
        self._row_of = np.empty(0, np.int64)
        self._center: Floats = np.zeros(dimensions, np.float32)
        self._axes = np.empty((dimensions, 0), np.float32)
        self._scale = 0.0
        """The power of two by which features are divided, so that no square overflows; 0 until a feature is not 0."""
        self._fitted = 0
        """Number of images when the center and the axes were computed."""

    @property
    def ids(self) -> Rows:
        """The ids of the images, int64 [N]."""
        return self._ids[: self.count]

    @property
    def features(self) -> Floats:
        """The features, float32 [N, D], divided by a constant."""
        return self._features[: self.count]

    @property
    def directions(self) -> Floats:
        """Centered and projected features of length 1, float32 [N, P]: their products are cosines."""
        return self._directions[: self.count]

    def rows(self, ids: NDArray[np.int64]) -> Rows:
        """Return the rows of ids int64 [M]: int64 [M], -1 for images that have not been added."""
        known = (ids >= 0) & (ids < len(self._row_of))
        rows = np.full(len(ids), -1)
        rows[known] = self._row_of[ids[known]]
        return rows

    def add(self, ids: NDArray[np.int64], features: Floats) -> None:
        """Add images; those that were added before are ignored.

        Args:
            ids: int64 [n], 0 or more.
            features: float32 [n, D].
        """
        new = np.sort(np.unique(ids, return_index=True)[1])
        new = new[self.rows(ids[new]) < 0]
        ids, features = ids[new], features[new]
        if not len(ids):
            return
        start, self.count = self.count, self.count + len(ids)
        self._features = _grown(self._features, self.count)
        self._directions = _grown(self._directions, self.count)
        self._ids = _grown(self._ids, self.count)
        known = len(self._row_of)
        self._row_of = _grown(self._row_of, int(ids.max()) + 1)
        self._row_of[known:] = -1
        if not self._scale:
            largest = float(np.abs(features).max())
            self._scale = 2.0 ** math.frexp(largest)[1] if largest else 0.0
        self._features[start : self.count] = features / (self._scale or 1)
        self._ids[start : self.count] = ids
        self._row_of[ids] = np.arange(start, self.count)
        if self.count >= GROWTH * self._fitted:
            self._fit_directions()
            start = 0
        for at in range(start, self.count, BLOCK):
            rows = slice(at, min(at + BLOCK, self.count))
            self._directions[rows] = self._embed(self._features[rows])

    def _fit_directions(self) -> None:
        sample = self.features[np.linspace(0, self.count - 1, min(SAMPLE, self.count)).astype(np.int64)]
        self._center = sample.mean(axis=0)
        centered = torch.from_numpy(sample - self._center)
        self._axes = principal_directions(centered, self._directions.shape[1]).numpy()
        self._fitted = self.count
        self.version += 1

    def _embed(self, features: Floats) -> Floats:
        projected: Floats = np.matmul(features - self._center, self._axes, dtype=np.float32)
        projected[~projected.any(axis=1), 0] = 1  # images at the center are identical, so their cosines must be 1
        lengths: Floats = np.linalg.norm(projected, axis=1, keepdims=True).astype(np.float32)
        return projected / lengths


def _grown(array: NDArray[Any], count: int) -> NDArray[Any]:
    """Return the array with room for `count` rows or more."""
    if count <= len(array):
        return array
    grown = np.empty((max(count, int(GROWTH * len(array))), *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
