"""The gradients of a batch, computed by one process, or by several that each take a part of it.

Shapes: B images of a batch, k classes.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from timm.layers import convert_sync_batchnorm  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from tlcli import processes
from tlcli.engines.batch_splitter import BatchSplitter
from tlcli.engines.torch_engine import autocast
from tlcli.training.tail.compilation import CompiledIfPossible, Forward
from tlcli.training.tail.recipe import Recipe

# Renamed in torch 2.15, where the old name warns. `synchronize_buffers` does it instead, once an epoch.
_NAMES = inspect.signature(DistributedDataParallel).parameters
_WITHOUT_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False
}


class Gradients:
    """Computes the gradients of batches, and leaves them in the parameters of a tail.

    Args:
        tail: Features to logits [B, k], on the device.
        recipe: Label smoothing, BatchNorm statistics, precision and seed.
        prior: float32 [k], added to the logits, or None.
        scaler: Scales the loss in fp16.
        device: Where the tail is.
        compiled: Whether to compile the tail.
        warn: Called if compilation fails, or if batches must be split to fit into memory.
    """

    compiles = True
    """Whether the tail may be compiled. A failure to compile in one of several processes would stop them all."""

    def __init__(
        self,
        tail: nn.Module,
        *,
        recipe: Recipe,
        prior: Tensor | None,
        scaler: torch.amp.GradScaler,
        device: torch.device,
        compiled: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._tail = tail
        self._recipe, self._prior, self._scaler, self._device = recipe, prior, scaler, device
        self._pass = CompiledIfPossible(tail, compiled=compiled and self.compiles, warn=warn)
        self._splitter = BatchSplitter(device, warn, min_size=2)
        self.least = 2
        """Minimum number of images in a batch."""
        self.batch_size = recipe.batch_size
        self._prepare(warn)

    def _prepare(self, warn: Callable[[str], None]) -> None:
        """Prepare what several processes need."""

    def train_mode(self) -> None:
        """Enable dropout, and BatchNorm's batch statistics unless the recipe fixes them."""
        _train_mode(self._tail, self._recipe)

    def own_part(self, batch: list[int]) -> Sequence[int]:
        """Return this process's part of a batch."""
        return batch

    def total(self, images: int) -> int:
        """Return the number of images in a batch of which `images` are this process's."""
        return images

    def backward(self, inputs: Tensor, labels: Tensor, images: int, step: int) -> float:
        """Leave the gradients of a batch in the parameters, unless its loss, which is returned, is NaN or infinite.

        Args:
            inputs: float32 [B, ...], on the device.
            labels: int64 [B], on the device.
            images: Images of all processes; here B.
            step: Seeds dropout and stochastic depth.
        """

        def batch_loss(tail: Forward) -> float:
            return sum(self._splitter.run(lambda part: self._part_loss(tail, inputs, labels, part, step), images))

        return self._pass.run(batch_loss)

    def _part_loss(self, tail: Forward, inputs: Tensor, labels: Tensor, part: slice, step: int) -> float:
        if part.start == 0:
            self._clear()
        logits = self._logits(tail, inputs[part], step + part.start * 1_000_000_007)
        share = len(labels[part]) / len(labels)
        loss = share * functional.cross_entropy(logits, labels[part], label_smoothing=self._recipe.label_smoothing)
        value = loss.item()
        if np.isfinite(value):
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return value

    def _logits(self, tail: Forward, inputs: Tensor, step: int) -> Tensor:
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed((self._recipe.seed * 1_000_003 + step) % 2**63)
            with autocast(self._recipe.precision, self._device):
                logits = tail(inputs).float()
        return logits if self._prior is None else logits + self._prior

    def _clear(self) -> None:
        for parameter in self._tail.parameters():
            parameter.grad = None

    def synchronize_buffers(self) -> None:
        """Make the tail's buffers the same in every process. Its parameters are the same after each step."""


class SharedGradients(Gradients):
    """Gradients by several processes, each with its part of every batch, averaged over all images.

    BatchNorm's statistics are those of all parts on CUDA. On a CPU, where torch does not support that, they are those
    of each process's own part, and `synchronize_buffers` keeps the running averages of the first process.
    """

    compiles = False

    def _prepare(self, warn: Callable[[str], None]) -> None:
        tail, device, fixed = self._tail, self._device, self._recipe.fixed_statistics
        moving = not fixed and any(isinstance(module, _BatchNorm) for module in tail.modules())
        synchronized = moving and device.type == "cuda"
        if moving:
            self.least = 2 * processes.size()  # two for each; padding would enter the statistics
            if self.batch_size < self.least:
                warn(f"batches have {self.least} images, two per process, the minimum for BatchNorm.")
                self.batch_size = self.least
        if moving and not synchronized:
            warn(
                "BatchNorm's statistics are computed from each process's part of a batch, since torch cannot "
                "synchronize them on a CPU; the running averages of the first process are kept."
            )
        self._shared = DistributedDataParallel(
            _synchronized(tail) if synchronized else tail,
            device_ids=[device] if device.type == "cuda" else None,
            static_graph=True,  # some parameters may have no gradient
            **_WITHOUT_BUFFERS,
        )

    def train_mode(self) -> None:
        """See `Gradients.train_mode`."""
        _train_mode(self._shared, self._recipe)

    def own_part(self, batch: list[int]) -> Sequence[int]:
        """See `Gradients.own_part`."""
        return processes.share(batch)

    def total(self, images: int) -> int:
        """See `Gradients.total`."""
        return round(processes.total([images])[0])

    def backward(self, inputs: Tensor, labels: Tensor, images: int, step: int) -> float:
        """See `Gradients.backward`. Running out of memory is an error here: the other processes could not follow."""
        count = len(labels)
        if count < 2:  # its images vanished; the padding does not count
            inputs = torch.cat([inputs, inputs.new_zeros(2 - count, *inputs.shape[1:])])
        self._clear()
        logits = self._logits(self._shared, inputs, step + processes.rank() * 998_244_353)[:count]
        smoothing = self._recipe.label_smoothing
        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum") / images
        value = processes.total([loss.item()])[0]
        if np.isfinite(value):  # for all, or for none
            self._scaler.scale(loss * processes.size()).backward()  # type: ignore[no-untyped-call]
        return value

    def synchronize_buffers(self) -> None:
        """Give every process the running averages of the first one."""
        for buffer in self._tail.buffers():
            torch.distributed.broadcast(buffer, 0)


def gradients_class() -> type[Gradients]:
    """Return how gradients are computed: by this process, or by all that were started together."""
    return Gradients if processes.size() == 1 else SharedGradients


def _train_mode(module: nn.Module, recipe: Recipe) -> None:
    module.train()
    if recipe.fixed_statistics:
        for inner in module.modules():
            if isinstance(inner, _BatchNorm):
                inner.eval()


def _synchronized(tail: nn.Module) -> nn.Module:
    """Return a tail with the same parameters and buffers whose BatchNorms are synchronized between processes.

    The tail itself is not converted, since its modules are those of the network that is saved.
    """
    tensors = itertools.chain(tail.parameters(), tail.buffers())
    own = copy.deepcopy(tail, {id(tensor): tensor for tensor in tensors})
    converted: nn.Module = convert_sync_batchnorm(own)  # type: ignore[no-untyped-call]
    return converted
