"""Resize an image of any size to a network's input; training and prediction share this code.

Normalization by mean and std happens later, on the network's device. Torch-free.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How images are prepared for a network. Stored in the run, and part of the feature cache's fingerprint."""

    height: int
    width: int
    channels: int
    """3 for RGB, 1 for gray."""
    fit: str
    """`crop`: the center, as in the backbone's own evaluation; `pad`: the whole image, padded with the mean color;
    `squash`: the whole image, without keeping its aspect ratio."""
    crop_fraction: float
    """Fraction of the short side that `crop` keeps, in (0, 1]."""
    interpolation: str
    """A key of `RESAMPLING`."""
    mean: tuple[float, ...]
    """Mean of each channel, for pixels in [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation of each channel, for pixels in [0, 1]."""
    intensity: tuple[float, float] | None = None
    """Values that become black and white in gray images with more than 8 bits; None means the 16-bit range."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        content = asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        if self.intensity is None:  # keeps the fingerprints of runs and caches that predate this field
            del content["intensity"]
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Preprocessing:
        """Create from the object that `to_json` returns."""
        tuples = {name: tuple(content[name]) for name in ("mean", "std", "intensity") if content.get(name)}
        return cls(**content | tuples)


def display_preprocessing(
    side: int, *, background: float = 0.5, intensity: tuple[float, float] | None = None
) -> Preprocessing:
    """Return preprocessing for display: the whole RGB image, padded to a square.

    Args:
        side: Height and width in pixels.
        background: Gray level of the padding, in [0, 1].
        intensity: See `Preprocessing`.
    """
    return Preprocessing(
        height=side,
        width=side,
        channels=3,
        fit="pad",
        crop_fraction=1.0,
        interpolation="bicubic",
        mean=(background,) * 3,
        std=(1.0,) * 3,
        intensity=intensity,
    )


MIN_OVERSAMPLING = 3.5
"""Pixels per network pixel that a decoder keeps at least when it reduces an image while decoding. With 3.5, the mean
error of an image's network input stays below one level of 255 (benchmarks/decode.py; with 3.0, one image had 1.02)."""


def oversampling(size: tuple[int, int], preprocessing: Preprocessing) -> float:
    """Return how many times larger than needed an image of this width and height is."""
    x_ratio, y_ratio = size[0] / preprocessing.width, size[1] / preprocessing.height
    match preprocessing.fit:
        case "pad":
            return max(x_ratio, y_ratio) / MIN_OVERSAMPLING
        case "crop":
            return min(x_ratio, y_ratio) * preprocessing.crop_fraction / MIN_OVERSAMPLING
        case _:
            return min(x_ratio, y_ratio) / MIN_OVERSAMPLING


def fit_image(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Resize an upright RGB or gray image to the network's input size.

    Only the box that the network sees is resized. This gives the same pixels as resizing everything and cropping, for
    less work.
    """
    size = (preprocessing.width, preprocessing.height)
    resampling = RESAMPLING[preprocessing.interpolation]
    match preprocessing.fit:
        case "squash":
            return image.resize(size, resampling)
        case "pad":
            return _pad(image, preprocessing, resampling)
        case _:
            return image.resize(size, resampling, box=_crop_box(image.size, preprocessing))


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Mapping from network input to image: on each axis, input coordinate x lies at start + step * x in the image."""

    size: tuple[int, int]
    """Width and height of the upright image, in pixels."""
    start: tuple[float, float]
    """x and y of the input's top left corner, in image pixels."""
    step: tuple[float, float]
    """Image pixels per input pixel along x and y."""
    inputs: tuple[int, int]
    """Width and height of the network's input, in pixels."""

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """Part of the image that the network sees: [x0, y0, x1, y1), in image pixels."""
        return self.box((0, 0, *self.inputs))

    @property
    def leaves_out(self) -> bool:
        """Whether the network sees less than the whole image, by a pixel or more."""
        x0, y0, x1, y1 = self.seen
        return x0 >= 1 or y0 >= 1 or x1 <= self.size[0] - 1 or y1 <= self.size[1] - 1

    def box(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Map a box of the input, [x0, y0, x1, y1), to image pixels, clipped to the image."""
        edges = [self.start[i % 2] + self.step[i % 2] * edge for i, edge in enumerate(box)]
        x0, y0, x1, y1 = (min(max(edge, 0.0), float(self.size[i % 2])) for i, edge in enumerate(edges))
        return x0, y0, x1, y1


def placement(size: tuple[int, int], preprocessing: Preprocessing) -> Placement:
    """Return how `fit_image` maps an upright image of `size` (width, height) to the input."""
    width, height = preprocessing.width, preprocessing.height
    match preprocessing.fit:
        case "squash":
            return Placement(
                size=size, start=(0.0, 0.0), step=(size[0] / width, size[1] / height), inputs=(width, height)
            )
        case "pad":
            inner = _inner_size(size, preprocessing)
            step = (size[0] / inner[0], size[1] / inner[1])
            start = (-((width - inner[0]) // 2) * step[0], -((height - inner[1]) // 2) * step[1])
            return Placement(size=size, start=start, step=step, inputs=(width, height))
        case _:
            left, top, right, bottom = _crop_box(size, preprocessing)
            step = ((right - left) / width, (bottom - top) / height)
            return Placement(size=size, start=(left, top), step=step, inputs=(width, height))


def _crop_box(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """Return the centered box that the network sees, in image pixels: (left, top, right, bottom)."""
    width, height = size
    # Image pixels per input pixel, when the short side is resized to 1 / crop_fraction of the input.
    scale = min(width / preprocessing.width, height / preprocessing.height) * preprocessing.crop_fraction
    box_width, box_height = preprocessing.width * scale, preprocessing.height * scale
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return (max(left, 0.0), max(top, 0.0), min(left + box_width, width), min(top + box_height, height))


def _pad(image: Image.Image, preprocessing: Preprocessing, resampling: Image.Resampling) -> Image.Image:
    inner = _inner_size(image.size, preprocessing)
    background = tuple(round(255 * value) for value in preprocessing.mean)
    canvas = Image.new(
        image.mode,
        (preprocessing.width, preprocessing.height),
        background if preprocessing.channels == 3 else background[0],
    )
    canvas.paste(
        image.resize(inner, resampling),
        ((preprocessing.width - inner[0]) // 2, (preprocessing.height - inner[1]) // 2),
    )
    return canvas


def _inner_size(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return width and height of a padded image without its padding, in input pixels."""
    scale = min(preprocessing.width / size[0], preprocessing.height / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
