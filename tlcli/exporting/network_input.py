"""The input of an exported network: raw pixels, or normalized images.

Shapes: B images of H x W pixels with C channels in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tlcli.images.batch import Floats, Pixels
from tlcli.images.preprocess import Preprocessing

EXAMPLES = 2
"""Images to trace with: torch would specialize the network for a batch of one."""


@dataclass(frozen=True, kw_only=True)
class NetworkInput:
    """The input of an exported network."""

    preprocessing: Preprocessing
    takes_pixels: bool
    """Whether the network takes pixels uint8 [B, H, W, C]; otherwise normalized images float32 [B, C, H, W]."""

    @property
    def name(self) -> str:
        """The input's name in an ONNX file."""
        return "pixels" if self.takes_pixels else "images"

    @property
    def description(self) -> str:
        """The dtype, shape, and range of the input, for users of an export."""
        height, width, channels = self.preprocessing.shape
        if self.takes_pixels:
            return f"uint8 [B, {height}, {width}, {channels}], pixels"
        return f"float32 [B, {channels}, {height}, {width}], (pixels / 255 - mean) / std"

    def example(self) -> torch.Tensor:
        """Return a batch to trace the network with."""
        height, width, channels = self.preprocessing.shape
        if self.takes_pixels:
            return torch.zeros(EXAMPLES, height, width, channels, dtype=torch.uint8)
        return torch.zeros(EXAMPLES, channels, height, width)

    def prepare(self, pixels: Pixels) -> Pixels | Floats:
        """Convert pixels uint8 [B, H, W, C] to the network's input."""
        return pixels.copy() if self.takes_pixels else normalize(pixels, self.preprocessing)


def normalize(pixels: Pixels, preprocessing: Preprocessing) -> Floats:
    """Convert pixels uint8 [B, H, W, C] to normalized images float32 [B, C, H, W]."""
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    images = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
