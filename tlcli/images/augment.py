"""Augmentation: `make_view` returns the same view for online training, cached features, and `tlcli augment`.

All random numbers are derived from the seed, the view number, and the digest of the image file. A view therefore
depends neither on the order of the images nor on the process that makes it. torch is imported on first use.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from tlcli.settings.augmentation import Augmentation

RelativeBox = tuple[float, float, float, float]
"""Left, top, right, and bottom, as fractions of an image's width and height, in [0, 1]."""

MAX_SHORT_SIDE = 640
"""Larger images are first reduced to this many pixels on their short side, since the cost of augmentation grows with
the number of pixels."""

MAX_ASPECT_CHANGE = 4 / 3
"""Largest factor by which a crop's aspect ratio differs from the image's."""


@dataclass(frozen=True, kw_only=True)
class AugmentationParameters:
    """Random parameters of one view; the defaults leave the image unchanged."""

    angle: float = 0.0
    """Rotation in degrees, counter-clockwise."""
    mirrored: bool = False
    flipped: bool = False
    crop: RelativeBox | None = None
    """Part of the rotated image to keep; None keeps all of it."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise, in levels of 255."""
    noise_seed: int = 0
    shift: tuple[int, int, int] = (0, 0, 0)
    """Levels of 255 added to red, green, and blue."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self) | {"crop": self.crop and list(self.crop), "shift": list(self.shift)}

    def describe(self) -> str:
        """Return a short description such as `rotated 7°, mirrored, crop 0.62, noise 8, color +12 -4 +20`."""
        left, top, right, bottom = self.crop or (0, 0, 1, 1)
        parts = [
            f"rotated {self.angle:.0f}°" if self.angle else "",
            "mirrored" if self.mirrored else "",
            "flipped" if self.flipped else "",
            f"crop {(right - left) * (bottom - top):.2f}" if self.crop else "",
            f"noise {self.noise:g}" if self.noise else "",
            "color " + " ".join(f"{level:+d}" for level in self.shift) if any(self.shift) else "",
        ]
        return ", ".join(part for part in parts if part) or "plain"


def draw_parameters(augmentation: Augmentation, *, seed: int, view: int, digest: bytes) -> AugmentationParameters:
    """Draw the parameters of view number `view` of the image with this `digest`; view 0 is the unchanged image.

    Every parameter is always drawn, in the same order, so enabling one augmentation does not change the others.
    """
    if view == 0:
        return AugmentationParameters()
    # Python guarantees that random() of a seeded Random stays the same across versions; its other methods may change.
    draw = random.Random(hashlib.sha256(f"{seed}:{view}:".encode() + digest).digest()).random
    angle = (2 * draw() - 1) * augmentation.rotate
    mirrored = draw() < 0.5
    flipped = draw() < 0.5
    crop = _draw_crop(augmentation.crop, draw(), draw(), draw(), draw())
    random_shift = (draw(), draw(), draw())
    noise_seed = int(draw() * 2**53)
    levels = augmentation.color_shift
    if not isinstance(levels, tuple):
        red, green, blue = (int(uniform * (2 * levels + 1)) - levels for uniform in random_shift)
        levels = (red, green, blue)
    return AugmentationParameters(
        angle=angle if augmentation.rotate else 0.0,
        mirrored=augmentation.mirror and mirrored,
        flipped=augmentation.flip_vertical and flipped,
        crop=crop if augmentation.crop < 1 else None,
        noise=augmentation.noise,
        noise_seed=noise_seed if augmentation.noise else 0,
        shift=levels,
    )


def _draw_crop(min_area: float, area: float, aspect: float, x: float, y: float) -> RelativeBox:
    """Return a box that covers at least the fraction `min_area` of the image, from four uniform numbers in [0, 1)."""
    kept = min_area + (1 - min_area) * area
    # Neither side may exceed the image's, which limits the aspect ratio when nearly all of the image is kept.
    max_log_aspect = math.log(min(MAX_ASPECT_CHANGE, 1 / kept))
    stretch = math.exp((2 * aspect - 1) * max_log_aspect)
    width, height = min(math.sqrt(kept * stretch), 1.0), min(math.sqrt(kept / stretch), 1.0)
    left, top = x * (1 - width), y * (1 - height)
    return (left, top, min(left + width, 1.0), min(top + height, 1.0))


def view_oversampling(size: tuple[int, int]) -> float:
    """Return how many times larger than augmentation needs an image of this width and height is."""
    return min(size) / MAX_SHORT_SIDE


def make_view(image: Image.Image, augmentation: Augmentation, *, seed: int, view: int, digest: bytes) -> Image.Image:
    """Make a view: reduce the image, rotate, crop, mirror, flip, shift its colors, and add noise, in this order.

    Args:
        image: Upright RGB image of any size.
        augmentation: Ranges of the random changes.
        seed: The user's seed, as for `--seed`.
        view: Number of the view; 0 returns the image itself.
        digest: SHA-256 of the image file.

    Returns:
        RGB image of the size of the crop. Preprocessing resizes it to the network's input.
    """
    if view == 0 or not augmentation.enabled:
        return image
    parameters = draw_parameters(augmentation, seed=seed, view=view, digest=digest)
    from torchvision.transforms import InterpolationMode

    transforms = import_transforms()
    image = _reduce(image)
    if parameters.angle:
        mean_color = image.reduce(image.size).getpixel((0, 0))
        image = transforms.rotate(image, parameters.angle, InterpolationMode.BILINEAR, fill=mean_color)
    if parameters.crop is not None:
        left, top, width, height = _pixel_box(parameters.crop, image.size)
        image = transforms.crop(image, top, left, height, width)
    if parameters.mirrored:
        image = transforms.horizontal_flip(image)
    if parameters.flipped:
        image = transforms.vertical_flip(image)
    if any(parameters.shift):
        image = image.point([min(max(level + shift, 0), 255) for shift in parameters.shift for level in range(256)])
    return _add_noise(image, parameters) if parameters.noise else image


def import_transforms() -> Any:  # noqa: ANN401 - torchvision annotates tensors only, but also accepts images
    """Return torchvision's functional transforms. The first import takes seconds."""
    from torchvision.transforms.v2 import functional

    return functional


def _reduce(image: Image.Image) -> Image.Image:
    short = min(image.size)
    if short <= MAX_SHORT_SIDE:
        return image
    size = (round(image.width * MAX_SHORT_SIDE / short), round(image.height * MAX_SHORT_SIDE / short))
    # With a reducing gap, a fast box filter does most of the work.
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=1.1)


def _pixel_box(box: RelativeBox, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, width, and height in whole pixels; width and height are at least 1."""
    (left, right), (top, bottom) = (
        (min(round(low * side), side - 1), round(high * side))
        for low, high, side in ((box[0], box[2], size[0]), (box[1], box[3], size[1]))
    )
    return left, top, max(right - left, 1), max(bottom - top, 1)


def _add_noise(image: Image.Image, parameters: AugmentationParameters) -> Image.Image:
    import torch

    # On one flat row of floats, torch's generator is eight times as fast as on [C, H, W] from Pillow. Rounding happens
    # here, because on uint8 torchvision truncates the noise toward zero.
    levels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float().div_(255)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the generators of GPUs.
        torch.default_generator.manual_seed(parameters.noise_seed)
        noisy: torch.Tensor = import_transforms().gaussian_noise(levels, sigma=parameters.noise / 255)
    return Image.frombytes("RGB", image.size, noisy.mul_(255).round_().byte().numpy().tobytes())
