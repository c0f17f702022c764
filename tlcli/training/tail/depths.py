"""What `--freeze auto` decides: which depths to try, when to stop, and which to keep. Nothing but arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHARES = (0.1, 0.25, 0.5)
"""A cut is tried where the tail's share of the multiply-adds first reaches one of these; at last, all of it."""
AUGMENTED_FROM = 0.5
"""Tails that take at least this share of the multiply-adds see augmented images; shorter ones learn as much from
cached plain features (see benchmarks/README.md), in a fraction of the time."""
SLOWER = 0.5
"""Each depth learns at this share of the last one's rate: what it starts from is better, and soon spoilt."""
PATIENCE = 2
"""Cuts in a row that are no better, after which it stops."""


def depths(costs: Sequence[int]) -> list[int]:
    """The layers to cut behind, deepest first, 0 (nothing frozen) last.

    Args:
        costs: Multiply-adds of each layer, the head's left out.
    """
    whole = sum(costs)
    found: list[int] = []
    for share in SHARES:
        tail = 0
        for layer in range(len(costs) - 1, 0, -1):
            tail += costs[layer]
            if tail >= share * whole:
                if layer not in found:
                    found.append(layer)
                break
    return [*found, 0]


@dataclass(frozen=True, kw_only=True)
class Gain:
    """By how much one tail's losses on the same images are lower than another's."""

    mean: float
    """In nats an image; positive is better."""
    error: float
    """Standard error of the paired difference."""

    @property
    def clear(self) -> bool:
        """Whether it is more than chance."""
        return self.mean > self.error


def gain(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> Gain:
    """Paired comparison of losses float [M] on the same images, M >= 1."""
    difference = before - after
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return Gain(mean=float(difference.mean()), error=float(error))


def epochs_for(share: float, *, candidates: int, budget: float, spent: float, most: int) -> int:
    """Epochs that a tail may have, so that all candidates cost alike and `budget` together.

    Args:
        share: Of the network's multiply-adds that the tail takes.
        candidates: How many depths there are.
        budget: In epochs of the whole network.
        spent: Of it.
        most: Epochs that are enough for any tail.

    Returns:
        At least 1, as long as the budget has room for it; else 0.
    """
    fair = max(1, int(budget / candidates / share))
    return min(fair, most, int((budget - spent) / share + 1e-6))
