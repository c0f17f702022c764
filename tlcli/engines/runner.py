"""The interface that all engines share: pixels in, features out.

Shapes: B images of H x W pixels with C channels in a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Runner(Protocol):
    """Runs a frozen prefix."""

    engine: str
    """`torch`, `onnx` or `openvino`."""
    device: torch.device
    precision: str
    """`fp32`, `bf16` or `fp16`."""

    def features(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """Compute features float32 [B, ...], on the device, of pixels uint8 [B, H, W, C]."""

    def map(self, batches: Iterable[npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.float32]]:
        """Compute `features` of each batch in the background; yield them as arrays, in order."""


def pad_batch(pixels: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Repeat the last image of a batch [B, ...] until the batch has `size` images.

    A smaller batch may use kernels that round differently, but the features of an image must not depend on how many
    images were left when an interrupted command was resumed.
    """
    short = size - len(pixels)
    return np.concatenate([pixels, np.repeat(pixels[-1:], short, axis=0)]) if short > 0 else pixels


def map_padded(
    runner: Runner, batches: Iterable[npt.NDArray[np.uint8]], size: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Run `runner.map` so that the features of an image do not depend on the size of its batch, to the last bit.

    This holds for torch on a CPU, where batches are padded to `size`. Engines for exported prefixes take images one by
    one, and GPUs give no such guarantee, so these get the batches as they are.

    Args:
        runner: The engine to run batches with.
        batches: uint8 [B, H, W, C], B <= `size`.
        size: Images per padded batch.

    Yields:
        float32 [B, ...] for each batch, in order.
    """
    if runner.engine != "torch" or runner.device.type != "cpu":
        yield from runner.map(batches)
        return
    lengths: deque[int] = deque()

    def padded() -> Iterator[npt.NDArray[np.uint8]]:
        for pixels in batches:
            lengths.append(len(pixels))
            yield pad_batch(pixels, size)

    for features in runner.map(padded()):
        yield features[: lengths.popleft()]
