"""From an image of any size to the pixels a network takes: one function, for training and prediction alike.

Torch-free. Normalization by mean and std happens later, on the network's device.
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
    """How images enter a network. Stored in the run and part of the cache's fingerprint."""

    height: int
    width: int
    channels: int
    """3 for RGB, 1 for gray."""
    fit: str
    """`crop`: the center, as in the backbone's own evaluation; `pad`: all of it on a ground of the mean
    color; `squash`: all of it, proportions given up."""
    crop_fraction: float
    """With `crop`, the share of the short side that is kept, in (0, 1]."""
    interpolation: str
    """A key of `RESAMPLING`."""
    mean: tuple[float, ...]
    """A channel's mean, of pixels in [0, 1]."""
    std: tuple[float, ...]
    """A channel's standard deviation, of pixels in [0, 1]."""
    intensity: tuple[float, float] | None = None
    """What becomes black and white of gray with more than 8 bits; None takes the range of 16 bits."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.height, self.width, self.channels

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        content = asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        if self.intensity is None:  # so that what was made before there were others is still known
            del content["intensity"]
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Preprocessing:
        """From `to_json`'s object."""
        tuples = {name: tuple(content[name]) for name in ("mean", "std", "intensity") if content.get(name)}
        return cls(**content | tuples)


def display_preprocessing(
    side: int, *, ground: float = 0.5, intensity: tuple[float, float] | None = None
) -> Preprocessing:
    """For people to look at: all of an RGB image, on a square of a gray between 0 and 1."""
    return Preprocessing(
        height=side,
        width=side,
        channels=3,
        fit="pad",
        crop_fraction=1.0,
        interpolation="bicubic",
        mean=(ground,) * 3,
        std=(1.0,) * 3,
        intensity=intensity,
    )


MIN_OVERSAMPLING = 3.5
"""Pixels that an image keeps for one of the network's where its decoder can leave some out: so many that what the
network sees is off by less than a level of 255, the mean of an image (benchmarks/decode.py; with 3.0, one by 1.02)."""


def oversampling(size: tuple[int, int], preprocessing: Preprocessing) -> float:
    """How many times larger than needed an image of this width and height is."""
    across, down = size[0] / preprocessing.width, size[1] / preprocessing.height
    match preprocessing.fit:
        case "pad":
            return max(across, down) / MIN_OVERSAMPLING
        case "crop":
            return min(across, down) * preprocessing.crop_fraction / MIN_OVERSAMPLING
        case _:
            return min(across, down) / MIN_OVERSAMPLING


def fit_image(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Bring an upright RGB (or gray) image to the network's input size.

    One resize of just the box that is needed: the same pixels as resizing all and cropping, for less work.
    """
    size = (preprocessing.width, preprocessing.height)
    resampling = RESAMPLING[preprocessing.interpolation]
    match preprocessing.fit:
        case "squash":
            return image.resize(size, resampling)
        case "pad":
            return _padded(image, preprocessing, resampling)
        case _:
            return image.resize(size, resampling, box=_crop_box(image.size, preprocessing))


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the network's pixels lie in an image: along an axis, pixel x of the input is at start + step * x."""

    size: tuple[int, int]
    """Width and height of the upright image, in pixels."""
    start: tuple[float, float]
    """x and y."""
    step: tuple[float, float]
    """The image's pixels for one of the input's, along x and y."""
    inputs: tuple[int, int]
    """Width and height of the network's input, in pixels."""

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """The part of the image that the network sees: [x0, y0, x1, y1)."""
        return self.box((0, 0, *self.inputs))

    @property
    def leaves_out(self) -> bool:
        """Whether that is less than the image, by a pixel or more."""
        x0, y0, x1, y1 = self.seen
        return x0 >= 1 or y0 >= 1 or x1 <= self.size[0] - 1 or y1 <= self.size[1] - 1

    def box(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """A box of the input, [x0, y0, x1, y1), in the image's pixels; what lies beside the image is cut off."""
        edges = [self.start[i % 2] + self.step[i % 2] * edge for i, edge in enumerate(box)]
        x0, y0, x1, y1 = (min(max(edge, 0.0), float(self.size[i % 2])) for i, edge in enumerate(edges))
        return x0, y0, x1, y1


def placement(size: tuple[int, int], preprocessing: Preprocessing) -> Placement:
    """Where `fit_image` puts an upright image of `size` (width, height)."""
    across, down = preprocessing.width, preprocessing.height
    match preprocessing.fit:
        case "squash":
            return Placement(
                size=size, start=(0.0, 0.0), step=(size[0] / across, size[1] / down), inputs=(across, down)
            )
        case "pad":
            inner = _inner_size(size, preprocessing)
            step = (size[0] / inner[0], size[1] / inner[1])
            start = (-((across - inner[0]) // 2) * step[0], -((down - inner[1]) // 2) * step[1])
            return Placement(size=size, start=start, step=step, inputs=(across, down))
        case _:
            left, top, right, bottom = _crop_box(size, preprocessing)
            step = ((right - left) / across, (bottom - top) / down)
            return Placement(size=size, start=(left, top), step=step, inputs=(across, down))


def _crop_box(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """The centered box of `size` that the network sees, in pixels of the image: (left, top, right, bottom)."""
    width, height = size
    # Pixels of the image for one of the network's, after its short side is 1 / crop_fraction of the input.
    scale = min(width / preprocessing.width, height / preprocessing.height) * preprocessing.crop_fraction
    box_width, box_height = preprocessing.width * scale, preprocessing.height * scale
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return (max(left, 0.0), max(top, 0.0), min(left + box_width, width), min(top + box_height, height))


def _padded(image: Image.Image, preprocessing: Preprocessing, resampling: Image.Resampling) -> Image.Image:
    inner = _inner_size(image.size, preprocessing)
    ground = tuple(round(255 * value) for value in preprocessing.mean)
    canvas = Image.new(
        image.mode,
        (preprocessing.width, preprocessing.height),
        ground if preprocessing.channels == 3 else ground[0],
    )
    canvas.paste(
        image.resize(inner, resampling),
        ((preprocessing.width - inner[0]) // 2, (preprocessing.height - inner[1]) // 2),
    )
    return canvas


def _inner_size(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Width and height of a padded image without its ground, in pixels of the input."""
    scale = min(preprocessing.width / size[0], preprocessing.height / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
