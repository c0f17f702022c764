"""Compiling a tail for training, where the run is long enough to pay it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]
R = TypeVar("R")

COMPILE_FROM = 5e14
"""Multiply-adds of all forward passes of a training from which compiling pays: about five minutes of a data-center GPU,
of which compiling takes one. An estimate: no GPU was at hand."""


def pick_compiled(device: torch.device, multiply_adds: float) -> bool:
    """Whether to compile a training of so many multiply-adds, forward passes alone: on CUDA, if there are enough.

    Never on a CPU, where it needs a C++ compiler, and convolutions go through the same library either way.
    """
    return device.type == "cuda" and multiply_adds >= COMPILE_FROM


class CompiledOrNot:
    """A tail that is run compiled for as long as that works, and as it is from then on.

    Args:
        tail: The tail; its parameters are shared with what is compiled.
        compiled: Whether to try.
        warn: Told where it doesn't work.
    """

    def __init__(self, tail: nn.Module, *, compiled: bool, warn: Callable[[str], None]) -> None:
        self._tail, self._warn = tail, warn
        # Not for shapes in general: batches are of one size, but for an epoch's last.
        self._compiled: Forward | None = torch.compile(tail, dynamic=False) if compiled else None

    def run(self, function: Callable[[Forward], R]) -> R:
        """What a function of the tail gives; it is called again with the tail as it is, if the compiled one fails."""
        if self._compiled is not None:
            try:
                return function(self._compiled)
            except Exception as error:  # noqa: BLE001 - compilers raise anything, and what isn't theirs comes again
                self._compiled = None
                self._warn(f"torch.compile failed ({type(error).__name__}); the network is trained as it is.")
        return function(self._tail)
