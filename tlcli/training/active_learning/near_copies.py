"""Images that are nearly identical to a labeled one, which need no label of their own.

A fixed similarity would not do: in the features of a network that was trained on the classes, all images of a class are
similar. An image is a near copy if it is much closer than the images around it.

Shapes: N images, M of them, P directions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

BACKGROUND_RANK = 4
"""The nearest neighbor that tells how close an image's surroundings are."""
NEAR = 0.15
"""Squared distance of near copies relative to that of this neighbor, at most."""
IDENTICAL = 3e-4
"""One minus the cosine of images that are copies whatever their surroundings are, such as other copies."""
BLOCK = 64


class NearCopies:
    """The near copies of the labeled images, updated as images and labels arrive."""

    def __init__(self) -> None:
        self._version = -1
        self._count = 0
        self._least: dict[int, float] = {}
        """The least cosine of a near copy, by the row of each labeled image that was compared with all others."""
        self._links: list[tuple[Rows, Rows, Floats]] = []
        """Near copies, the labeled images, and their cosines."""

    def originals(self, directions: Floats, labeled: Rows, version: int) -> Rows:
        """Return the most similar labeled image of each image that is a near copy of one: rows int64 [N], else -1.

        Args:
            directions: float32 [N, P], of length 1; the first ones are those of the previous call.
            labeled: int64 [M], rows of labeled images. A labeled image is not a copy.
            version: If it differs from that of the previous call, so do all directions.
        """
        if version != self._version:
            self._version, self._count, self._least, self._links = version, 0, {}, []
        known = np.fromiter(self._least, np.int64, len(self._least))
        if self._count < len(directions) and len(known):
            self._link(directions, known, np.fromiter(self._least.values(), np.float32, len(known)), self._count)
        self._count = len(directions)
        new = labeled[~np.isin(labeled, known)]
        for start in range(0, len(new), BLOCK):
            some = new[start : start + BLOCK]
            least = least_cosines(directions[some] @ directions.T)
            self._least.update(zip(some.tolist(), least.tolist(), strict=True))
            self._link(directions, some, least, 0)
        return self._most_similar(labeled)

    def _link(self, directions: Floats, labeled: Rows, least: Floats, start: int) -> None:
        for at in range(0, len(labeled), BLOCK):
            some = labeled[at : at + BLOCK]
            cosines = directions[some] @ directions[start:].T
            which, copies = np.nonzero(cosines >= least[at : at + BLOCK, None])
            self._links.append((copies + start, some[which], cosines[which, copies]))

    def _most_similar(self, labeled: Rows) -> Rows:
        originals = np.full(self._count, -1)
        if self._links:
            copies, sources, cosines = (np.concatenate(parts) for parts in zip(*self._links, strict=True))
            kept = np.isin(sources, labeled)
            order = np.flatnonzero(kept)[np.argsort(cosines[kept], kind="stable")]
            originals[copies[order]] = sources[order]  # of several, the last one, which is the most similar
        originals[labeled] = -1
        return originals


def least_cosines(cosines: Floats) -> Floats:
    """Return the least cosine of the near copies of images.

    Args:
        cosines: float32 [M, N], of M images with all images, themselves included.

    Returns:
        float32 [M].
    """
    rank = min(BACKGROUND_RANK, cosines.shape[1] - 1)
    background = -np.partition(-cosines, rank, axis=1)[:, rank]
    least: Floats = 1 - np.maximum(NEAR * (1 - background), np.float32(IDENTICAL))
    return least


def distinct_rows(directions: Floats) -> Rows:
    """Return the rows of float32 [M, P] that are not near copies of an earlier one of them: int64."""
    cosines = directions @ directions.T
    near = cosines >= least_cosines(cosines)[:, None]
    kept: list[int] = []
    for row in range(len(directions)):
        if not near[row, kept].any():
            kept.append(row)
    return np.array(kept, np.int64)
