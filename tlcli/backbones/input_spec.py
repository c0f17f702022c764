"""The description of the images that a network expects. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The images that a network expects, from its pretrained_cfg."""

    channels: int
    height: int
    """Height in pixels."""
    width: int
    """Width in pixels."""
    mean: tuple[float, ...]
    """Mean of each channel, for values in [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation of each channel, for values in [0, 1]."""
    interpolation: str
    """"bicubic", "bilinear", ... when resizing."""
    crop_fraction: float
    """Share of the resized image's short side that the center crop keeps, in (0, 1] (timm's crop_pct)."""
