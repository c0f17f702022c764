"""The torch engine: run a frozen prefix in channels-last layout, in fp32 or under autocast.

Shapes: B images of H x W pixels with C channels in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tlcli.engines.batch_splitter import BatchSplitter
from tlcli.engines.threads import map_in_threads
from tlcli.images.preprocess import Preprocessing

T = TypeVar("T")
R = TypeVar("R")

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context manager for a forward pass; it does nothing for `fp32`."""
    dtype = AUTOCAST_DTYPES.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def map_in_torch_threads(function: Callable[[T], R], batches: Iterable[T], device: torch.device) -> Iterator[R]:
    """Apply `map_in_threads` to a function that runs torch.

    On a CPU, use as many threads as torch is set to, and let torch use one in each. On a GPU, use a single thread.
    """
    torch_threads = torch.get_num_threads()
    threads = torch_threads if device.type == "cpu" else 1
    try:
        yield from map_in_threads(
            function, batches, threads, lambda: torch.set_num_threads(max(1, torch_threads // threads))
        )
    finally:
        torch.set_num_threads(torch_threads)


def normalization(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return the scale and shift that turn pixels in 0 .. 255 into (x / 255 - mean) / std.

    Args:
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].

    Returns:
        Scale and shift, both float32 [1, C, 1, 1].
    """
    scale = torch.tensor([1 / (255 * s) for s in std])
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
    return scale.reshape(1, -1, 1, 1), shift.reshape(1, -1, 1, 1)


class TorchRunner:
    """Runs a frozen prefix in torch.

    Args:
        prefix: float32 [B, C, H, W], normalized, to features [B, ...]. It is moved to `device`.
        preprocessing: Its mean and std normalize the pixels.
        device: The device that runs the prefix.
        precision: `fp32`, or the autocast type `bf16` or `fp16`.
        warn: Called with a message when batches have to become smaller.
    """

    engine = "torch"

    def __init__(
        self,
        prefix: nn.Module,
        preprocessing: Preprocessing,
        *,
        device: torch.device,
        precision: str,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.device = device
        self.precision = precision
        self._splitter = BatchSplitter(device, warn)
        if device.type == "cuda":  # keep fp32 exact, for tails too: TF32 has 10 mantissa bits instead of 23
            torch.backends.cudnn.allow_tf32 = False
        self._prefix = prefix.to(device).to(memory_format=torch.channels_last).eval()
        scale, shift = normalization(preprocessing.mean, preprocessing.std)
        self._scale, self._shift = scale.to(device), shift.to(device)

    @torch.inference_mode()
    def features(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """Compute the features of a batch.

        Args:
            pixels: uint8 [B, H, W, C].

        Returns:
            float32 [B, ...], on the device.

        Raises:
            MachineError: The device has no memory for even a single image.
        """
        parts = self._splitter.run(lambda part: self._features(pixels[part]), len(pixels))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _features(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        images = torch.from_numpy(pixels)
        if self.device.type == "cuda":  # pinned memory is copied while the previous batch computes
            images = images.pin_memory()
        images = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        images = images.float().mul_(self._scale).add_(self._shift)
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.precision, self.device):
            features: Tensor = self._prefix(images).float()
            return features

    def map(self, batches: Iterable[npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.float32]]:
        """Compute `features` of each batch in the background; yield them as arrays, in order."""

        def run(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            array: npt.NDArray[np.float32] = self.features(pixels).cpu().numpy()
            return array

        return map_in_torch_threads(run, batches, self.device)
