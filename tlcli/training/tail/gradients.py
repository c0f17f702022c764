"""The gradients of a batch, computed by one process; `distributed` computes them by several.

Shapes: B images of a batch, k classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from tlcli.engines.batch_splitter import BatchSplitter
from tlcli.engines.torch_engine import autocast
from tlcli.training.tail.allocator import keep_freed_memory
from tlcli.training.tail.compilation import CompiledIfPossible, Forward
from tlcli.training.tail.cpu_operations import FastOperations
from tlcli.training.tail.recipe import Recipe


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
        self._operations: FastOperations | None = None
        self.least = 2
        """Minimum number of images in a batch."""
        self.batch_size = recipe.batch_size
        self._prepare(warn)

    def _prepare(self, warn: Callable[[str], None]) -> None:
        """Prepare what several processes need."""

    def train_mode(self) -> None:
        """Enable dropout, and BatchNorm's batch statistics unless the recipe fixes them."""
        set_train_mode(self._tail, self._recipe)

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
            fast_operations = self._fast_operations(inputs)
            torch.manual_seed((self._recipe.seed * 1_000_003 + step) % 2**63)
            with fast_operations, autocast(self._recipe.precision, self._device):
                logits = tail(inputs).float()
        return logits if self._prior is None else logits + self._prior

    def _fast_operations(self, inputs: Tensor) -> contextlib.AbstractContextManager[object]:
        if self._device.type != "cpu":
            return contextlib.nullcontext()
        if self._operations is None:
            keep_freed_memory()
            self._operations = FastOperations(self._tail, inputs if self._recipe.fixed_statistics else None)
        return self._operations

    def _clear(self) -> None:
        for parameter in self._tail.parameters():
            parameter.grad = None

    def synchronize_buffers(self) -> None:
        """Make the tail's buffers the same in every process. Its parameters are the same after each step."""


def set_train_mode(module: nn.Module, recipe: Recipe) -> None:
    """Enable dropout, and BatchNorm's batch statistics unless the recipe fixes them."""
    module.train()
    if recipe.fixed_statistics:
        for inner in module.modules():
            if isinstance(inner, _BatchNorm):
                inner.eval()
