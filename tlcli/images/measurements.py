"""Quantities measured on images: brightness, size, sharpness, and aspect ratio. Torch-free.

Shapes: H and W in pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from tlcli.images.batch import stack_images
from tlcli.images.loader import ImageLoader
from tlcli.images.preprocess import Preprocessing
from tlcli.images.worker import DecodeOptions

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green, and blue (ITU-R BT.601)."""

Pixels = npt.NDArray[np.uint8]


def measure_images(
    what: str,
    paths: Iterable[str],
    *,
    preprocessing: Preprocessing,
    workers: int,
    advance: Callable[[int], None] = lambda _: None,
) -> npt.NDArray[np.float64]:
    """Measure images: float64 [N]; NaN for those that cannot be read.

    Args:
        what: One of `MEASURES` of the settings of evaluate.
        paths: Paths of N images.
        preprocessing: Gives the pixels whose brightness and sharpness are measured: those that the network sees.
        workers: Number of decoder processes.
        advance: Called with 1 for each finished image.
    """
    whole = what in {"size", "aspect"}
    options = DecodeOptions(measure="upright") if whole else DecodeOptions(preprocessing=preprocessing)
    values = []
    with ImageLoader(options, workers=workers) as loader:
        for image in loader.load(paths):
            if image.dimensions is not None:
                width, height = image.dimensions
                values.append(min(width, height) if what == "size" else width / height)
            elif image.pixels is not None:
                pixels = stack_images([image.pixels], preprocessing.shape)[0]
                values.append(brightness(pixels) if what == "brightness" else sharpness(pixels))
            else:
                values.append(float("nan"))
            advance(1)
    return np.array(values, np.float64)


def brightness(pixels: Pixels) -> float:
    """Return the mean luma of pixels [H, W, C], in [0, 255]."""
    return float(_luma(pixels).mean())


def sharpness(pixels: Pixels) -> float:
    """Return the standard deviation of the Laplacian of pixels [H, W, C], in gray levels.

    It is low if an image is out of focus, moved, or enlarged (Pech-Pacheco et al. 2000); 0 below 3 pixels.
    """
    luma = _luma(pixels)
    if min(luma.shape) < 3:
        return 0.0
    center = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * center
    return float(laplacian.std())


def _luma(pixels: Pixels) -> npt.NDArray[np.float64]:
    """Return the luma [H, W] of pixels [H, W, C], where C is 1 or 3."""
    found: npt.NDArray[np.float64] = pixels.astype(np.float64) @ (LUMA if pixels.shape[2] == 3 else (1.0,))
    return found
