"""Split batches that do not fit into memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TypeVar

import torch

from tlcli.errors import MachineError, out_of_memory

R = TypeVar("R")


class BatchSplitter:
    """Runs batches whole until memory runs out, and from then on in halves, quarters, and so on.

    Args:
        device: The device whose memory is limited.
        warn: Called with a message each time the parts become smaller.
        min_size: Smallest number of images in a part.
    """

    def __init__(self, device: torch.device, warn: Callable[[str], None], *, min_size: int = 1) -> None:
        self._device, self._warn, self._min_size = device, warn, min_size
        self._max_size: int | None = None
        """Largest number of images that fits; None until memory runs out."""

    def run(self, function: Callable[[slice], R], count: int) -> list[R]:
        """Call a function on a batch, in as many parts as memory requires.

        Args:
            function: Called with consecutive slices of 0 .. count - 1. If memory runs out, all slices are run again
                from the first one, with smaller slices.
            count: Images in the batch.

        Returns:
            The result of each part, in order.

        Raises:
            MachineError: Not even the smallest part fits.
        """
        while True:
            parts = self._parts(count)
            try:
                return [function(part) for part in parts]
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                size = max(part.stop - part.start for part in parts)
                if size < 2 * self._min_size:
                    raise MachineError(
                        f"{self._device} does not have enough memory for a batch of {size}. Use a smaller --size or "
                        "network, freeze more layers, or use another --device."
                    ) from error
            self._max_size = size // 2
            self._warn(f"{self._device} ran out of memory; continuing with {self._max_size} images at a time.")
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _parts(self, count: int) -> list[slice]:
        number = min(math.ceil(count / (self._max_size or count)), max(1, count // self._min_size))
        bounds = [count * index // number for index in range(number + 1)]
        return [slice(start, end) for start, end in itertools.pairwise(bounds)]
