"""The gradients of a batch: by one process, or by several that each take a part of it.

Shapes: B images of a batch, k classes.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable
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
from tlcli.training.tail.compilation import CompiledOrNot, Forward
from tlcli.training.tail.recipe import Recipe

# The name changed in torch 2.15, where the old one warns. `settle` does it, once an epoch.
_NAMES = inspect.signature(DistributedDataParallel).parameters
_WITHOUT_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False
}


class Gradients:
    """Leaves the gradients of batches in the parameters of a tail.

    Args:
        tail: features to logits [B, k], on the device.
        recipe: How it is trained.
        prior: float32 [k], added to the logits, or None.
        scaler: Of the loss.
        device: Where.
        compiled: Whether to compile the tail.
        warn: Told where it can't be compiled, and where batches have to be taken in parts.
    """

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
        self._pass = CompiledOrNot(tail, compiled=compiled, warn=warn)
        self._splitter = BatchSplitter(device, warn, min_size=2)
        self.least = 2
        """Images that a batch has at least, where there are enough."""
        self.batch_size = recipe.batch_size
        self._begin(warn)

    def _begin(self, warn: Callable[[str], None]) -> None:
        """Make ready what several processes need."""

    def train_mode(self) -> None:
        """Have dropout drop, and BatchNorm take the statistics of batches, unless the recipe fixes them."""
        _train_mode(self._tail, self._recipe)

    def count(self, images: int) -> int:
        """Images in a batch of which `images` are this process's."""
        return images

    def of(self, inputs: Tensor, labels: Tensor, images: int, step: int) -> float:
        """Leave the gradients of a batch in the parameters, unless its loss, which is returned, is no number.

        Args:
            inputs: float32 [B, ...], on the device.
            labels: int64 [B], on the device.
            images: Those of all processes; here B.
            step: Seeds dropout and stochastic depth.
        """

        def of_batch(tail: Forward) -> float:
            return sum(self._splitter.run(lambda part: self._of_part(tail, inputs, labels, part, step), images))

        return self._pass.run(of_batch)

    def _of_part(self, tail: Forward, inputs: Tensor, labels: Tensor, part: slice, step: int) -> float:
        if part.start == 0:
            self._forget()
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

    def _forget(self) -> None:
        for parameter in self._tail.parameters():
            parameter.grad = None

    def settle(self) -> None:
        """Make the tail the same in every process: its parameters are, after each step."""


class SharedGradients(Gradients):
    """The same by several processes, each with its part of every batch; gradients are averaged over all images.

    BatchNorm's statistics are those of all parts on CUDA. On a CPU, where torch can't, they are of each process's own
    part, and `settle` keeps the first one's running averages.
    """

    def _begin(self, warn: Callable[[str], None]) -> None:
        tail, device, fixed = self._tail, self._device, self._recipe.fixed_statistics
        moving = not fixed and any(isinstance(module, _BatchNorm) for module in tail.modules())
        synchronized = moving and device.type == "cuda"
        if moving:
            self.least = 2 * processes.size()  # two for each, or what comes instead would enter the statistics
            if self.batch_size < self.least:
                warn(f"batches have {self.least} images, two for each process, since BatchNorm can't take fewer.")
                self.batch_size = self.least
        if moving and not synchronized:
            warn(
                "BatchNorm's statistics are those of each process's part of a batch, since torch can't synchronize "
                "them on a CPU; the running averages of the first process are kept."
            )
        self._shared = DistributedDataParallel(
            _synchronized(tail) if synchronized else tail,
            device_ids=[device] if device.type == "cuda" else None,
            static_graph=True,  # parameters may be without a gradient
            **_WITHOUT_BUFFERS,
        )

    def train_mode(self) -> None:
        """As alone."""
        _train_mode(self._shared, self._recipe)

    def count(self, images: int) -> int:
        """Images in a batch of which `images` are this process's."""
        return round(processes.total([images])[0])

    def of(self, inputs: Tensor, labels: Tensor, images: int, step: int) -> float:
        """As alone, but memory that runs out is an error: the others could not follow."""
        count = len(labels)
        if count < 2:  # its images vanished; what comes instead counts for nothing
            inputs = torch.cat([inputs, inputs.new_zeros(2 - count, *inputs.shape[1:])])
        self._forget()
        logits = self._logits(self._shared, inputs, step + processes.rank() * 998_244_353)[:count]
        smoothing = self._recipe.label_smoothing
        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum") / images
        value = processes.total([loss.item()])[0]
        if np.isfinite(value):  # for all, or for none
            self._scaler.scale(loss * processes.size()).backward()  # type: ignore[no-untyped-call]
        return value

    def settle(self) -> None:
        """Give every process the running averages of the first."""
        for buffer in self._tail.buffers():
            torch.distributed.broadcast(buffer, 0)


def _train_mode(module: nn.Module, recipe: Recipe) -> None:
    module.train()
    if recipe.fixed_statistics:
        for inner in module.modules():
            if isinstance(inner, _BatchNorm):
                inner.eval()


def _synchronized(tail: nn.Module) -> nn.Module:
    """The same network, with the same parameters and buffers, whose BatchNorms ask the other processes.

    A network of its own, since the modules of the tail are those of the network that is saved and predicts.
    """
    tensors = itertools.chain(tail.parameters(), tail.buffers())
    own = copy.deepcopy(tail, {id(tensor): tensor for tensor in tensors})
    converted: nn.Module = convert_sync_batchnorm(own)  # type: ignore[no-untyped-call]
    return converted
