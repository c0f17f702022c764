"""How many epochs each depth is trained for: as many as the user gave, or as fit into a budget of work or of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tlcli import processes
from tlcli.progress import Reporter
from tlcli.settings.durations import describe_duration
from tlcli.training.tail.depths import CandidateDepth
from tlcli.training.tail.probe import DepthCost
from tlcli.training.tail.recipe import (
    BUDGET,
    EPOCHS,
    EPOCHS_EACH,
    EPOCHS_FROM_SCRATCH,
    FOLDS_BUDGET,
    REFIT_SHARE,
    TailOptions,
    epoch_stretch,
)


@dataclass(kw_only=True)
class EpochPlan:
    """Chooses the epochs of each depth."""

    options: TailOptions
    candidates: Sequence[CandidateDepth]
    images: int
    """Number of training images."""
    passes: float
    """Epochs over all training images that one epoch on each division of them amounts to."""
    cross_validated: bool
    """Whether depths are compared on folds, each of which is trained."""
    cost: Callable[[CandidateDepth], DepthCost]
    """Estimates the cost of a depth. Called only if there is a deadline."""
    report: Reporter

    def epochs(self, depth: int, spent: float, repeat_seconds: float = 0.0) -> int:
        """Return the epochs of a depth; 0 if the budget is used up, which is reported.

        Args:
            depth: Index of the candidate.
            spent: Budget used so far, in epochs of the whole network.
            repeat_seconds: Duration of training on all images the depths so far, which were trained on folds.
        """
        options, stretch = self.options, epoch_stretch(self.images, self.options.batch_size)
        if options.freeze == "auto":
            most = round(EPOCHS_EACH * stretch)
            budget = options.epochs or round((FOLDS_BUDGET if self.cross_validated else BUDGET) * stretch)
            share = self.candidates[depth].share * self.passes
            found = epochs_within_budget(share, candidates=len(self.candidates), budget=budget, spent=spent, most=most)
            if not found:
                self.report.note(f"  the budget of {budget} full epochs is used up")
        else:
            found = options.epochs or (round(EPOCHS * stretch) if options.pretrained else EPOCHS_FROM_SCRATCH)
        if not found or options.deadline is None:
            return found
        cost = self.cost(self.candidates[depth])  # all processes compute the features that it measures
        return processes.from_first(lambda: self._within_deadline(depth, found, cost, repeat_seconds))

    def _within_deadline(self, depth: int, most: int, cost: DepthCost, repeat_seconds: float) -> int:
        assert self.options.deadline is not None
        left = self.options.deadline - time.monotonic() - cost.once - repeat_seconds
        passes = self.passes + 1 if self.cross_validated else self.passes * (1 + REFIT_SHARE * self.options.refit)
        epoch = cost.epoch * passes
        if left < epoch:
            self.report.note(
                f"  the next depth takes about {describe_duration(cost.once + epoch)}, and "
                f"{describe_duration(max(0.0, left + cost.once))} of the budget are left: no further depth is trained"
            )
            return 0
        fair = max(1, int(left / (len(self.candidates) - depth) / epoch))
        return min(most, fair)


def epochs_within_budget(share: float, *, candidates: int, budget: float, spent: float, most: int) -> int:
    """Return the epochs that a tail may take, so that all candidates cost the same and `budget` together.

    Args:
        share: The tail's share of the network's multiply-adds.
        candidates: Number of depths to try.
        budget: In epochs of the whole network.
        spent: Part of the budget that is used up.
        most: Enough epochs for any tail.

    Returns:
        At least 1 as long as the budget has room for it, else 0.
    """
    fair = max(1, int(budget / candidates / share))
    return min(fair, most, int((budget - spent) / share + 1e-6))
