"""Compile a tail for training, if training is long enough for compilation to pay off."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]
R = TypeVar("R")

COMPILE_FROM = 5e14
"""Multiply-adds of all forward passes above which compiling pays: about five minutes of a data-center GPU, of which
compiling takes one. An estimate, not measured on a GPU."""


def pick_compiled(device: torch.device, multiply_adds: float) -> bool:
    """Return whether to compile a tail for training, given the multiply-adds of all forward passes: on CUDA, if many.

    Never on a CPU, where it needs a C++ compiler, and convolutions use the same library either way.
    """
    return device.type == "cuda" and multiply_adds >= COMPILE_FROM


class CompiledIfPossible:
    """A tail that runs compiled until that fails, and uncompiled from then on.

    Args:
        tail: The tail. The compiled one shares its parameters.
        compiled: Whether to compile the tail.
        warn: Called with a message if compilation fails.
    """

    def __init__(self, tail: nn.Module, *, compiled: bool, warn: Callable[[str], None]) -> None:
        self._tail, self._warn = tail, warn
        # Not dynamic: all batches have one size, except for the last one of an epoch.
        self._compiled: Forward | None = torch.compile(tail, dynamic=False) if compiled else None

    def run(self, function: Callable[[Forward], R]) -> R:
        """Call a function with the compiled tail, and again with the uncompiled one if that fails."""
        if self._compiled is not None:
            try:
                return function(self._compiled)
            except Exception as error:  # noqa: BLE001 - compilers raise anything; other errors occur again below
                self._compiled = None
                self._warn(f"torch.compile failed ({type(error).__name__}); training continues uncompiled.")
        return function(self._tail)
