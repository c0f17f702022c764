"""Running a frozen prefix fast: device, precision, memory layout, and pixels to features.

B images of H x W pixels with C channels in a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tlcli import processes
from tlcli.engines.memory import Halving
from tlcli.engines.streams import map_batches
from tlcli.errors import MachineError, UsageError

T = TypeVar("T")
R = TypeVar("R")

ONNX_FROM = 600
"""Images that take about as long in torch as exporting the network and running it in ONNX Runtime
(benchmarks/engine.py: 562 for EfficientNet-Lite0 on two cores)."""

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(device: str) -> torch.device:
    """`auto` is CUDA where there is one; anything else must be there. Of several processes each has a GPU of its own.

    Raises:
        MachineError: the device asked for isn't on this machine.
        UsageError: one GPU is asked for by several processes.
    """
    local_rank = processes.local_rank()
    if local_rank is not None and device in {"auto", "cuda"} and torch.cuda.is_available():
        return torch.device("cuda", local_rank)
    if local_rank is not None and device.startswith("cuda:"):
        raise UsageError(f"--device {device}: each process of torchrun has a GPU of its own. Use --device cuda.")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = device.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise MachineError(
            f"--device {device}: this machine has {torch.cuda.device_count()} CUDA devices that torch can use. "
            "Use --device cpu (or auto)."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise MachineError("--device mps: torch finds no Apple GPU here. Use --device cpu (or auto).")
    return torch.device(device)


def uses_cuda(device: str) -> bool:
    """Whether `pick_device` would give a CUDA device."""
    return torch.cuda.is_available() and device.partition(":")[0] in {"auto", "cuda"}


def pick_precision(precision: str, device: torch.device) -> str:
    """`auto` is fp16 autocast on CUDA and fp32 elsewhere.

    Raises:
        UsageError: fp16 on a CPU, where it is slower than fp32 and no more exact.
    """
    if precision == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 has no use on a CPU. Use fp32 (or bf16: faster, but less exact).")
    return precision


def numerics(precision: str) -> str:
    """What of a precision tells features apart: fp16 is used only where it agrees with fp32 (`open_runner`)."""
    return "fp32" if precision == "fp16" else precision


def pick_engine(engine: str, device: torch.device, precision: str, images: int | None) -> str:
    """`auto` is ONNX Runtime on a CPU where there are enough images to make up for the export, and torch elsewhere.

    Args:
        engine: What was asked for.
        device: Where it is to run.
        precision: Of the frozen network.
        images: How many there are; None where the network is exported in any case.

    Raises:
        UsageError: ONNX Runtime for what it is not made for here.
    """
    able = device.type == "cpu" and precision == "fp32"
    if engine == "onnx" and not able:
        raise UsageError(f"--engine onnx runs on a CPU in fp32, not on {device} in {precision}. Use --engine torch.")
    if engine != "auto":
        return engine
    return "onnx" if able and (images is None or images >= ONNX_FROM) else "torch"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context that a forward pass runs in."""
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def pick_batch_size(batch_size: int | None, device: torch.device) -> int:
    """What was asked for, else 256 on a GPU and 4 on a CPU, where more no longer fits its caches."""
    return batch_size or (4 if device.type == "cpu" else 256)


def map_in_torch(function: Callable[[T], R], batches: Iterable[T], device: torch.device) -> Iterator[R]:
    """`map_batches` of what runs torch: on a CPU a stream a core, each with a thread of its own; on a GPU one."""
    threads = torch.get_num_threads()
    streams = threads if device.type == "cpu" else 1
    try:
        yield from map_batches(function, batches, streams, lambda: torch.set_num_threads(max(1, threads // streams)))
    finally:
        torch.set_num_threads(threads)


def normalization(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """What pixels are multiplied by, and what is then added: (x / 255 - mean) / std. Both float32 [1, C, 1, 1]."""
    scale = torch.tensor([1 / (255 * s) for s in std])
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
    return scale.reshape(1, -1, 1, 1), shift.reshape(1, -1, 1, 1)


class Runner(Protocol):
    """Runs a frozen prefix: pixels in, features out."""

    engine: str
    device: torch.device
    precision: str

    def features(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """uint8 [B, H, W, C] to features float32 [B, ...], on the device."""

    def map(self, batches: Iterable[npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.float32]]:
        """`features` of each batch as an array, computed in the background, in order."""


def filled(pixels: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """A batch [B, ...] with its last image repeated, so that there are `size`.

    A smaller batch may take kernels that round otherwise, and what an image gives must not depend on how many were
    left when an interrupted command went on.
    """
    short = size - len(pixels)
    return np.concatenate([pixels, np.repeat(pixels[-1:], short, axis=0)]) if short > 0 else pixels


def map_filled(
    runner: Runner, batches: Iterable[npt.NDArray[np.uint8]], size: int
) -> Iterator[npt.NDArray[np.float32]]:
    """`runner.map` of batches of up to `size` images, each giving the same to the last bit whatever their number.

    On GPUs nothing is promised, and ONNX Runtime takes images one by one: they get the batches as they are.
    """
    if runner.engine != "torch" or runner.device.type != "cpu":
        yield from runner.map(batches)
        return
    lengths: deque[int] = deque()

    def whole() -> Iterator[npt.NDArray[np.uint8]]:
        for pixels in batches:
            lengths.append(len(pixels))
            yield filled(pixels, size)

    for features in runner.map(whole()):
        yield features[: lengths.popleft()]


class PrefixRunner:
    """Runs a frozen prefix in plain torch, channels-last: pixels in, features out.

    Args:
        prefix: float32 [B, C, H, W], normalized, to features [B, ...].
        mean: A channel's mean, of pixels in [0, 1].
        std: A channel's standard deviation, of pixels in [0, 1].
        device: Where to run; the prefix is moved there.
        precision: `fp32`, or the autocast type `bf16` or `fp16`.
        warn: Told where batches had to become smaller.
    """

    engine = "torch"

    def __init__(
        self,
        prefix: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        device: torch.device,
        precision: str,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.device = device
        self.precision = precision
        self._halving = Halving(device, warn)
        if device.type == "cuda":  # fp32 is fp32, for tails too: TF32 keeps 10 bits of 23
            torch.backends.cudnn.allow_tf32 = False
        self._prefix = prefix.to(device).to(memory_format=torch.channels_last).eval()
        self._scale, self._shift = (values.to(device) for values in normalization(mean, std))

    @torch.inference_mode()
    def features(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """Features of a batch.

        Args:
            pixels: uint8 [B, H, W, C].

        Returns:
            float32 [B, ...], on the device.

        Raises:
            MachineError: no memory on the device for a single image.
        """
        parts = self._halving.run(lambda part: self._features(pixels[part]), len(pixels))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _features(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        images = torch.from_numpy(pixels)
        if self.device.type == "cuda":  # copied from pinned memory, while the last batch computes
            images = images.pin_memory()
        images = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        images = images.float().mul_(self._scale).add_(self._shift)
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.precision, self.device):
            features: Tensor = self._prefix(images).float()
            return features

    def map(self, batches: Iterable[npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.float32]]:
        """`features` of each batch as an array, computed in the background, in order."""

        def run(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            array: npt.NDArray[np.float32] = self.features(pixels).cpu().numpy()
            return array

        return map_in_torch(run, batches, self.device)
