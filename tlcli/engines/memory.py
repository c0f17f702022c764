"""Batches in as many parts as fit into memory: where a batch doesn't, half of it may."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TypeVar

import torch

from tlcli.errors import MachineError, out_of_memory

R = TypeVar("R")


class Halving:
    """Runs batches whole, until memory runs out; from then on in halves, quarters, ... which is said each time once.

    Args:
        device: Whose memory it is about.
        warn: Told of it.
        least: Images that a part has at least.
    """

    def __init__(self, device: torch.device, warn: Callable[[str], None], *, least: int = 1) -> None:
        self._device, self._warn, self._least = device, warn, least
        self._most: int | None = None
        """Images that are known to fit; None where all did so far."""

    def run(self, function: Callable[[slice], R], count: int) -> list[R]:
        """What a function of a part of a batch gives for all parts, the first of which is begun again after a failure.

        Args:
            function: Called with the parts of 0 .. count - 1 in order.
            count: Images in the batch.

        Raises:
            MachineError: not even the smallest part fits.
        """
        while True:
            parts = self._parts(count)
            try:
                return [function(part) for part in parts]
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                size = max(part.stop - part.start for part in parts)
                if size < 2 * self._least:
                    raise MachineError(
                        f"{self._device} has no memory for {size} images at a time. Use a smaller --size or network, "
                        "freeze more, or use another --device."
                    ) from error
            self._most = size // 2
            self._warn(f"{self._device} ran out of memory; going on with {self._most} images at a time.")
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _parts(self, count: int) -> list[slice]:
        number = min(math.ceil(count / (self._most or count)), max(1, count // self._least))
        bounds = [count * index // number for index in range(number + 1)]
        return [slice(start, end) for start, end in itertools.pairwise(bounds)]
