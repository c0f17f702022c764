"""One function makes a view: the same distorted image for online training, cached features and `tlcli augment`.

Everything random is drawn from the seed, the view's number and the image's bytes, so it depends on neither the
order of the images nor on which process makes them. torch is imported only where an image is made.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from tlcli.settings.augmentation import Augmentation

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as shares of an image's width and height."""

MAX_SHORT_SIDE = 640
"""Pixels of the short side; larger images are reduced to it before they are distorted, which costs by the pixel."""

MAX_ASPECT_CHANGE = 4 / 3
"""How much wider or narrower than the image's own proportions a crop may be."""


@dataclass(frozen=True, kw_only=True)
class AugmentationParameters:
    """What was drawn for one view; the defaults are the plain image."""

    angle: float = 0.0
    """Degrees, counter-clockwise."""
    mirrored: bool = False
    flipped: bool = False
    crop: Box | None = None
    """The part of the turned image that is kept; None is all of it."""
    noise: float = 0.0
    """Standard deviation, in levels of 255."""
    noise_seed: int = 0
    shift: tuple[int, int, int] = (0, 0, 0)
    """Levels of 255 that are added to red, green and blue."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self) | {"crop": self.crop and list(self.crop), "shift": list(self.shift)}

    def describe(self) -> str:
        """In a few words for people: `turned 7°, mirrored, crop 0.62, noise 8, color +12 -4 +20`."""
        left, top, right, bottom = self.crop or (0, 0, 1, 1)
        parts = [
            f"turned {self.angle:.0f}°" if self.angle else "",
            "mirrored" if self.mirrored else "",
            "flipped" if self.flipped else "",
            f"crop {(right - left) * (bottom - top):.2f}" if self.crop else "",
            f"noise {self.noise:g}" if self.noise else "",
            "color " + " ".join(f"{level:+d}" for level in self.shift) if any(self.shift) else "",
        ]
        return ", ".join(part for part in parts if part) or "plain"


def draw_parameters(augmentation: Augmentation, *, seed: int, view: int, digest: bytes) -> AugmentationParameters:
    """What view number `view` of the image with this `digest` looks like; view 0 is the plain image.

    Every quantity is always drawn, in the same order, so that switching one distortion on changes no other.
    """
    if view == 0:
        return AugmentationParameters()
    # random() of a seeded Random is promised to stay the same in every version of Python; its relatives are not.
    draw = random.Random(hashlib.sha256(f"{seed}:{view}:".encode() + digest).digest()).random
    angle = (2 * draw() - 1) * augmentation.rotate
    mirrored = draw() < 0.5
    flipped = draw() < 0.5
    crop = _draw_crop(augmentation.crop, draw(), draw(), draw(), draw())
    random_shift = (draw(), draw(), draw())
    noise_seed = int(draw() * 2**53)
    levels = augmentation.color_shift
    if not isinstance(levels, tuple):
        red, green, blue = (int(share * (2 * levels + 1)) - levels for share in random_shift)
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


def _draw_crop(least: float, area: float, aspect: float, across: float, down: float) -> Box:
    """A box of at least the share `least` of the image, from four numbers in [0, 1)."""
    share = least + (1 - least) * area
    # Neither side may exceed the image's, which bounds the aspect when nearly all of the image is kept.
    widest = math.log(min(MAX_ASPECT_CHANGE, 1 / share))
    stretch = math.exp((2 * aspect - 1) * widest)
    width, height = min(math.sqrt(share * stretch), 1.0), min(math.sqrt(share / stretch), 1.0)
    left, top = across * (1 - width), down * (1 - height)
    return (left, top, min(left + width, 1.0), min(top + height, 1.0))


def view_oversampling(size: tuple[int, int]) -> float:
    """How many times larger than needed for views an image of this width and height is."""
    return min(size) / MAX_SHORT_SIDE


def view(image: Image.Image, augmentation: Augmentation, *, seed: int, view: int, digest: bytes) -> Image.Image:
    """View number `view` of an image: reduced, turned, cropped, mirrored, flipped, shifted in color, made noisy.

    Args:
        image: Upright, RGB, of any size.
        augmentation: How far views may differ from it.
        seed: The user's seed.
        view: 0 gives the image itself.
        digest: SHA-256 of the image's file.

    Returns:
        RGB; of the size of the crop, which preprocessing brings to the network's.
    """
    if view == 0 or not augmentation.enabled:
        return image
    amounts = draw_parameters(augmentation, seed=seed, view=view, digest=digest)
    from torchvision.transforms import InterpolationMode

    transforms = import_transforms()
    image = _reduced(image)
    if amounts.angle:
        ground = image.reduce(image.size).getpixel((0, 0))  # the mean color
        image = transforms.rotate(image, amounts.angle, InterpolationMode.BILINEAR, fill=ground)
    if amounts.crop is not None:
        left, top, width, height = _pixels(amounts.crop, image.size)
        image = transforms.crop(image, top, left, height, width)
    if amounts.mirrored:
        image = transforms.horizontal_flip(image)
    if amounts.flipped:
        image = transforms.vertical_flip(image)
    if any(amounts.shift):
        image = image.point([min(max(level + by, 0), 255) for by in amounts.shift for level in range(256)])
    return _noisy(image, amounts) if amounts.noise else image


def import_transforms() -> Any:  # noqa: ANN401 - torchvision types them for tensors alone, though they take images
    """The transforms of torchvision, as functions. Their first import takes seconds."""
    from torchvision.transforms.v2 import functional

    return functional


def _reduced(image: Image.Image) -> Image.Image:
    short = min(image.size)
    if short <= MAX_SHORT_SIDE:
        return image
    size = (round(image.width * MAX_SHORT_SIDE / short), round(image.height * MAX_SHORT_SIDE / short))
    # The gap lets a fast box filter do most of the work.
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=1.1)


def _pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height in whole pixels, at least one each way."""
    (left, right), (top, bottom) = (
        (min(round(low * side), side - 1), round(high * side))
        for low, high, side in ((box[0], box[2], size[0]), (box[1], box[3], size[1]))
    )
    return left, top, max(right - left, 1), max(bottom - top, 1)


def _noisy(image: Image.Image, amounts: AugmentationParameters) -> Image.Image:
    import torch

    # One row of float values, on which torch's generator is eight times as fast as on [C, H, W] from Pillow, and
    # which are rounded here: on uint8 torchvision cuts the noise off towards zero.
    levels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float().div_(255)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed the generators of GPUs.
        torch.default_generator.manual_seed(amounts.noise_seed)
        noisy: torch.Tensor = import_transforms().gaussian_noise(levels, sigma=amounts.noise / 255)
    return Image.frombytes("RGB", image.size, noisy.mul_(255).round_().byte().numpy().tobytes())
