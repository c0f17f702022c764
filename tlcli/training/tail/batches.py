"""Batches for training: which images are in each, and the source of their features.

Shapes: B images in a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Source(Protocol):
    """A source of batches: the cache, or streamed images."""

    waited: float
    """Seconds spent waiting for images so far."""

    def load(self, batches: Sequence[Sequence[int]], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows int64 [B'] and inputs float32 [B', ...] of each batch, without images that cannot be read."""


def batches_of(count: int, size: int, *, seed: int, epoch: int, least: int = 2) -> list[list[int]]:
    """Return the rows 0 to `count` - 1 in a random order, in batches.

    Args:
        count: Number of images.
        size: Images in a batch.
        seed: Seed of the order.
        epoch: Each epoch has its own order.
        least: A last batch with fewer images is merged into the one before: BatchNorm cannot train on one image.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 100_003 + epoch)).tolist()
    batches = [order[start : start + size] for start in range(0, count, size)]
    if len(batches) > 1 and len(batches[-1]) < least:
        rest = batches.pop()
        batches[-1] += rest
    return batches


def to_device(inputs: Tensor, device: torch.device) -> Tensor:
    """Move inputs to the device; maps in channels-last order, in which convolutions are fast."""
    order = torch.channels_last if inputs.ndim == 4 else torch.contiguous_format
    return inputs.to(device, memory_format=order, non_blocking=True)
