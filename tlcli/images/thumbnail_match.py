"""Whether two images are one image saved twice: thumbnails laid over each other. Torch-free.

Shapes: V crops, m other images, S = SIDE.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
"""How images become thumbnails: all of each, whatever its proportions."""

SIDE = 20
"""Pixels a side in which thumbnails are compared: where what re-encoding and resizing change has been averaged away."""
TILES = 4
"""Tiles a side: something small that differs fills one of them, and would drown in a figure for the whole image."""
KEPT = tuple((left / 40, 1 - right / 40) for left in range(5) for right in range(5))
"""What a crop may have kept of a side: all but up to a tenth at either end. Width and height in every combination."""

Pixels = npt.NDArray[np.uint8]
Patterns = npt.NDArray[np.float32]


def crop_patterns(thumbnail: Pixels) -> Patterns:
    """The whole of a thumbnail uint8 [48, 48, 3], then crops of it: float32 [V, S, S, 3], see `_standardized`."""
    rows = np.tensordot(_SHRINK, thumbnail.astype(np.float32), axes=(2, 0))  # [a, S, 48, 3]
    both = np.tensordot(_SHRINK, rows, axes=(2, 2))  # [b, S, a, S, 3]
    patterns: Patterns = both.transpose(2, 0, 3, 1, 4).reshape(-1, SIDE, SIDE, 3)
    return _standardized(patterns)


def whole_pattern(thumbnail: Pixels) -> Patterns:
    """Only the first of `crop_patterns`: float32 [S, S, 3]."""
    shrink = _SHRINK[0]
    small = np.tensordot(shrink, np.tensordot(shrink, thumbnail.astype(np.float32), axes=(1, 0)), axes=(1, 1))
    pattern: Patterns = _standardized(small.transpose(1, 0, 2)[None])[0]
    return pattern


def pattern_similarity(mine: Patterns, others: Patterns) -> npt.NDArray[np.float32]:
    """How well images lie over the best of one image's crops, as they are or mirrored.

    Args:
        mine: From `crop_patterns`, float32 [V, S, S, 3].
        others: From `whole_pattern`, float32 [m, S, S, 3].

    Returns:
        float32 [m], at most 1: in the worst tile, 1 less what the crop leaves unexplained, as a share of the variance
        of the whole image.
    """
    turned = np.concatenate([others, others[:, :, ::-1]])
    size = SIDE * SIDE * 3
    scores = mine.reshape(-1, size) @ turned.reshape(-1, size).T / size  # correlations [V, 2m]
    best = scores.argmax(axis=0)
    found = scores[best, np.arange(len(turned))]
    left = (turned - found[:, None, None, None] * mine[best]) ** 2
    step = SIDE // TILES
    tiles = left.reshape(-1, TILES, step, TILES, step, 3).mean(axis=(2, 4, 5)).reshape(2, len(others), -1)
    explained = np.where(found.reshape(2, -1) > 0, 1 - tiles.max(axis=2), 0.0)
    result: npt.NDArray[np.float32] = explained.max(axis=0).astype(np.float32)
    return result


def _standardized(patterns: Patterns) -> Patterns:
    """Each [S, S, 3] with mean 0 and mean square 1, for brightness and contrast don't count; 0 if blank."""
    centered = patterns - patterns.mean(axis=(1, 2, 3), keepdims=True)
    deviation = np.sqrt((centered**2).mean(axis=(1, 2, 3), keepdims=True))
    gain = np.where(deviation > BLANK, 1 / np.maximum(deviation, BLANK), 0)
    result: Patterns = (centered * gain).astype(np.float32)
    return result


BLANK = 1.0
"""Standard deviation, in levels of 255, below which an image is blank: what is in it is noise."""


def _shrinking(low: float, high: float) -> Patterns:
    """Weights [S, 48] that average the share `low` to `high` of a side into S pixels."""
    edges = np.linspace(low, high, SIDE + 1) * THUMBNAIL.width
    pixels = np.arange(THUMBNAIL.width)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: Patterns = (np.maximum(overlap, 0) / np.diff(edges)[:, None]).astype(np.float32)
    return weights


_SHRINK = np.stack([_shrinking(low, high) for low, high in KEPT])
