"""Compare thumbnails to decide whether two images are the same image saved twice. Torch-free.

Shapes: V crops, M other images, S = SIDE.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tlcli.images.batch import Pixels
from tlcli.images.preprocess import Preprocessing

THUMBNAIL = Preprocessing(
    height=48,
    width=48,
    channels=3,
    fit="squash",
    crop_fraction=1.0,
    interpolation="bicubic",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
"""Preprocessing of thumbnails: the whole image, squashed to a square."""

SIDE = 20
"""Side in pixels at which thumbnails are compared: small enough to average out re-encoding and resizing artifacts."""
TILES = 4
"""Tiles per side. A small difference shows in the error of its tile, but hardly in that of the whole image."""
KEPT = tuple((left / 40, 1 - right / 40) for left in range(5) for right in range(5))
"""Parts of a side that a crop may keep, as fractions: up to a tenth is cut at either end. Combined for both sides."""

Patterns = npt.NDArray[np.float32]


def crop_patterns(thumbnail: Pixels) -> Patterns:
    """Return standardized crops of a thumbnail, the whole image first.

    Args:
        thumbnail: uint8 [48, 48, 3].

    Returns:
        float32 [V, S, S, 3], each crop standardized (see `_standardize`).
    """
    rows = np.tensordot(_SHRINK, thumbnail.astype(np.float32), axes=(2, 0))  # [V_y, S, 48, 3]
    both = np.tensordot(_SHRINK, rows, axes=(2, 2))  # [V_x, S, V_y, S, 3]
    patterns: Patterns = both.transpose(2, 0, 3, 1, 4).reshape(-1, SIDE, SIDE, 3)
    return _standardize(patterns)


def whole_pattern(thumbnail: Pixels) -> Patterns:
    """Return only the first of `crop_patterns`, the whole image: float32 [S, S, 3]."""
    shrink = _SHRINK[0]
    small = np.tensordot(shrink, np.tensordot(shrink, thumbnail.astype(np.float32), axes=(1, 0)), axes=(1, 1))
    pattern: Patterns = _standardize(small.transpose(1, 0, 2)[None])[0]
    return pattern


def pattern_similarity(crops: Patterns, others: Patterns) -> npt.NDArray[np.float32]:
    """Return how well each image matches the best crop of one image, unchanged or mirrored.

    Args:
        crops: Patterns of one image, from `crop_patterns`: float32 [V, S, S, 3].
        others: Patterns of M images, from `whole_pattern`: float32 [M, S, S, 3].

    Returns:
        float32 [M], at most 1: 1 minus the worst tile's residual variance, as a fraction of the variance of the whole
        image.
    """
    both = np.concatenate([others, others[:, :, ::-1]])  # unchanged and mirrored
    size = SIDE * SIDE * 3
    correlations = crops.reshape(-1, size) @ both.reshape(-1, size).T / size  # [V, 2M]
    best = correlations.argmax(axis=0)
    correlation = correlations[best, np.arange(len(both))]
    residual = (both - correlation[:, None, None, None] * crops[best]) ** 2
    step = SIDE // TILES
    tiles = residual.reshape(-1, TILES, step, TILES, step, 3).mean(axis=(2, 4, 5)).reshape(2, len(others), -1)
    explained = np.where(correlation.reshape(2, -1) > 0, 1 - tiles.max(axis=2), 0.0)
    result: npt.NDArray[np.float32] = explained.max(axis=0).astype(np.float32)
    return result


def _standardize(patterns: Patterns) -> Patterns:
    """Scale each [S, S, 3] to mean 0 and mean square 1, which removes brightness and contrast; a blank one to 0."""
    centered = patterns - patterns.mean(axis=(1, 2, 3), keepdims=True)
    deviation = np.sqrt((centered**2).mean(axis=(1, 2, 3), keepdims=True))
    gain = np.where(deviation > BLANK, 1 / np.maximum(deviation, BLANK), 0)
    result: Patterns = (centered * gain).astype(np.float32)
    return result


BLANK = 1.0
"""Standard deviation, in levels of 255, below which an image counts as blank, since it contains only noise."""


def _shrink_weights(low: float, high: float) -> Patterns:
    """Return weights [S, 48] that average the part from `low` to `high` of a side, as fractions, into S pixels."""
    edges = np.linspace(low, high, SIDE + 1) * THUMBNAIL.width
    pixels = np.arange(THUMBNAIL.width)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: Patterns = (np.maximum(overlap, 0) / np.diff(edges)[:, None]).astype(np.float32)
    return weights


_SHRINK = np.stack([_shrink_weights(low, high) for low, high in KEPT])
