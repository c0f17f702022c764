"""The rounding of stored features, applied on every path, with or without a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Features = npt.NDArray[np.floating[Any]]

LARGEST = float(np.finfo(np.float16).max)
"""65,504. A feature with a larger value stays float32."""


def stored_dtype(shape: tuple[int, ...]) -> np.dtype[Any]:
    """Return float32 for vectors, and float16 for maps and tokens that do not overflow it."""
    return np.dtype(np.float32 if len(shape) == 1 else np.float16)


def as_stored(feature: Features) -> Features:
    """Return a copy of one image's feature in the dtype in which it is stored.

    Args:
        feature: float32 [*feature_shape].

    Returns:
        The feature in `stored_dtype`, or in float32 if a value overflows it. It is contiguous in memory even if the
        network is channels-last, so that readers that ignore strides find [C, H, W].
    """
    dtype = stored_dtype(feature.shape)
    fits = dtype == np.float32 or np.abs(feature).max(initial=0) <= LARGEST
    return feature.astype(dtype if fits else np.float32, order="C")


def round_as_stored(features: Tensor) -> Tensor:
    """Round a batch exactly as a store would: `as_stored` of each row, in torch on any device.

    Not for the images themselves, which are the features if nothing is frozen: they are never stored.

    Args:
        features: float32 [B, *feature_shape].

    Returns:
        float32 [B, *feature_shape].
    """
    if features.ndim == 2:
        return features
    fits = features.abs().flatten(1).amax(1) <= LARGEST
    return features.half().float().where(fits.view(-1, *[1] * (features.ndim - 1)), features)
