"""Batches of a training: which images are in each, and where their numbers come from.

Shapes: B images of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Source(Protocol):
    """Where batches come from: a cache, or images."""

    waited: float
    """Seconds spent waiting for images so far."""

    def load(self, batches: Sequence[Sequence[int]], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows int64 [B'] and inputs float32 [B', ...] of each batch; rows whose images failed are left out."""


def batches_of(count: int, size: int, *, seed: int, epoch: int, least: int = 2) -> list[list[int]]:
    """All of 0 .. count - 1 in a random order, in batches.

    Args:
        count: Images.
        size: Of a batch.
        seed: Of the order.
        epoch: Each has its own order.
        least: The last batch is joined to the one before where it has fewer images: BatchNorm can't take one alone.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 100_003 + epoch)).tolist()
    batches = [order[start : start + size] for start in range(0, count, size)]
    if len(batches) > 1 and len(batches[-1]) < least:
        rest = batches.pop()
        batches[-1] += rest
    return batches


def to_device(inputs: Tensor, device: torch.device) -> Tensor:
    """Inputs on the device, maps in the memory order that convolutions are fast in."""
    order = torch.channels_last if inputs.ndim == 4 else torch.contiguous_format
    return inputs.to(device, memory_format=order, non_blocking=True)
