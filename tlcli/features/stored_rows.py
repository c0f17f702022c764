"""Stored features as rows of a matrix, which are read on demand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tlcli.features.extractor import FeatureExtractor

IN_MEMORY = 2**27
"""Number of values (0.5 GB) above which features stay on disk: cross-validation needs a rotated copy for each fold."""


class StoredRows:
    """Features of images, read on demand: the plain features first, then those of each view.

    Args:
        extractor: Its stores hold the features.
        digests: Digests of the images.
        views: Number of augmented views of each image.
    """

    def __init__(self, extractor: FeatureExtractor, digests: Sequence[bytes], views: int) -> None:
        plain, augmented = extractor.plain, extractor.augmented
        self._places = [(plain, plain.places((digest, 0) for digest in digests))]
        if augmented is not None:
            self._places += [
                (augmented, augmented.places((digest, view) for digest in digests)) for view in range(1, views + 1)
            ]
        self._images = len(digests)
        self.shape = (len(self._places) * len(digests), *plain.shape)

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Read rows `start` to `stop`: float32 [stop - start, D]."""
        found = []
        while start < stop:
            view, at = divmod(start, self._images)
            end = min(self._images, at + stop - start)
            store, places = self._places[view]
            found.append(store.read(places[at:end]))
            start += end - at
        return found[0] if len(found) == 1 else np.concatenate(found)

    def gather(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return some rows of the plain features, int64 [n]: float32 [n, *feature_shape]."""
        store, places = self._places[0]
        return store.read(places[rows])
