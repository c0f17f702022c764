"""Share the processor cores among the fits of a head.

OpenMP splits every product among all cores and waits for the last of them, thousands of times in a fit. If another
program keeps a core busy, each wait costs a time slice, and waiting threads spin. For small matrices, one thread per
fit is as fast or faster, and the folds of a cross-validation use the other cores without waiting for each other.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

SMALL_VALUES = 2**24
"""Number of features times rows (13,107 rows of 1,280) up to which each fit uses one thread (benchmarks/busy.py)."""
TINY_VALUES = 2**17
"""The same (102 rows of 1,280) up to which one thread runs all fits: others would wait for the interpreter lock."""


@contextlib.contextmanager
def one_thread_each(shape: Sequence[int], device: str) -> Iterator[int]:
    """Make torch use one thread if the matrix is small and on the CPU.

    Args:
        shape: Shape of the matrix.
        device: `cpu` or a CUDA device.

    Yields:
        How many threads to share the fits among: the number of threads that torch used before, or 1.
    """
    threads = torch.get_num_threads()
    if device != "cpu" or math.prod(shape) > SMALL_VALUES:
        yield 1
        return
    torch.set_num_threads(1)  # for new threads too
    try:
        yield threads if math.prod(shape) > TINY_VALUES else 1
    finally:
        torch.set_num_threads(threads)


def map_fits(function: Callable[[T], R], fits: Iterable[T], at_a_time: int) -> list[R]:
    """Apply `function` to fits, several at a time, and return the results in order."""
    fits = list(fits)
    if min(at_a_time, len(fits)) <= 1:
        return [function(fit) for fit in fits]
    with ThreadPoolExecutor(min(at_a_time, len(fits))) as pool:
        return list(pool.map(function, fits))
