"""To what features are rounded when they are stored, and so on every path, with a cache and without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Features = npt.NDArray[np.floating[Any]]

LARGEST = float(np.finfo(np.float16).max)
"""65,504. A feature with a value beyond it stays float32."""


def stored_dtype(shape: tuple[int, ...]) -> np.dtype[Any]:
    """float32 for vectors; float16 for maps and tokens, as long as it holds them."""
    return np.dtype(np.float32 if len(shape) == 1 else np.float16)


def as_stored(feature: Features) -> Features:
    """A copy of one image's feature in the type that keeps it.

    Args:
        feature: float32 [*feature_shape].

    Returns:
        In `stored_dtype`; in float32 where a value is too large for that. Row by row in memory, also where a
        channels-last network gave another order, so that a reader who ignores strides finds [C, H, W].
    """
    dtype = stored_dtype(feature.shape)
    fits = dtype == np.float32 or np.abs(feature).max(initial=0) <= LARGEST
    return feature.astype(dtype if fits else np.float32, order="C")


def round_as_stored(features: Tensor) -> Tensor:
    """What a store would give back for a batch, bit for bit: `as_stored` of each row, in torch on any device.

    Not for the images themselves, where nothing is frozen: they are no features and never stored.

    Args:
        features: float32 [B, *feature_shape].

    Returns:
        float32 [B, *feature_shape].
    """
    if features.ndim == 2:
        return features
    fits = features.abs().flatten(1).amax(1) <= LARGEST
    return features.half().float().where(fits.view(-1, *[1] * (features.ndim - 1)), features)
