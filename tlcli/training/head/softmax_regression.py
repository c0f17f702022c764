"""Softmax regression on all features at once: the exact fit of the head of a frozen backbone.

Shapes: N images, D features, k classes, r <= D coordinates after rotation, F fits. Inside this file
everything is class-major, [F, k, N] and [F, k, r + 1]; see `standardization`.

What makes it fast without giving up the exact minimum:

- Features are scaled and rotated once into the eigenvectors of their covariance within classes, where the
  Hessian is nearly diagonal: it is bounded by a Kronecker product of a [k, k] matrix and the
  covariance (Boehning 1992, "Multinomial logistic regression algorithm"). With fewer images than
  features, the rotation also drops directions in which images do not vary.
- L-BFGS (Nocedal 1980) starts every step from the inverse of that diagonal; logits are linear in the
  weights, so a line search costs no product with the features.
- A path of L2 values goes from strong to weak, each fit starting from the one before.
- The fits of a cross-validation's folds take their steps together, so that many small ones cost little more than one.
  Features that do not fit into memory are streamed, and these fits share every pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tlcli.training.head.minimization import Fits, minimize
from tlcli.training.head.standardization import (
    FeatureMatrix,
    MatrixInMemory,
    Rows,
    StreamedMatrix,
    read_blocks,
)
from tlcli.training.head.threads import map_fits, one_thread_each

WITHIN_WEIGHT = 0.07
"""Weight of the covariance within classes in the penalty. With a strong L2, 0 gives the nearest class mean, and 1 would
give linear discriminant analysis."""
CACHED_VALUES = 2**18
"""Number of logits of all fits that take their steps together: few enough for a processor's cache."""
STREAMED_VALUES = 2**32 // 28
"""The same if features are streamed: a fit holds 7 arrays of so many float32 at a time, 4 GiB. A single fit may exceed
it."""


@dataclass(frozen=True, kw_only=True)
class SoftmaxHead:
    """A linear classifier on raw features."""

    weight: Tensor
    """float32 [k, D], on the CPU."""
    bias: Tensor
    """float32 [k], on the CPU."""

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of features float32 [N, D]: float32 [N, k]."""
        with one_thread_each(features.shape, features.device.type):
            return torch.nn.functional.linear(features, self.weight, self.bias)

    def logits_of(self, rows: Rows) -> Tensor:
        """Return the logits of streamed rows: float32 [N, k]."""
        return torch.cat([self.logits(block) for _, block in read_blocks(rows)])


class HeadFits:
    """The fits of one head for each of several weightings, for any penalties.

    A fit minimizes `mean(weight * cross-entropy) + l2 / 2 * trace(W P W^T)` over weights W on scaled features and a
    bias. P is the identity times 1 - `within_weight` plus the covariance within classes, with a mean diagonal of 1,
    times `within_weight`. Means, scales, and P are those of the rows with a weight; a constant feature gets weight 0.

    Args:
        features: float32 [N, D], N >= 1, in memory, or streamed rows.
        labels: int64 [N]; classes without a row are allowed.
        weightings: float32 [N] for each fit: 0 for rows it is not fitted on; the mean of the others is 1.
        classes: Number of classes k.
        device: `cpu` or a CUDA device.

    Raises:
        DataError: a feature is NaN or infinite.
    """

    def __init__(
        self,
        features: Tensor | Rows,
        labels: Tensor,
        weightings: Sequence[Tensor],
        *,
        classes: int,
        device: str = "cpu",
    ) -> None:
        self._shape, self._device, self._labels, self._classes = features.shape, device, labels, classes
        with one_thread_each(self._shape, device) as at_a_time:
            seen = [weights > 0 for weights in weightings]
            self._matrix: FeatureMatrix
            if isinstance(features, Tensor):
                self._matrix, values = MatrixInMemory.of(features, labels, seen, device, at_a_time), CACHED_VALUES
            else:
                self._matrix, values = StreamedMatrix(features, labels, seen, device), STREAMED_VALUES
            self._batches = [
                Fits.of(numbers, self._matrix, labels, weightings, classes)
                for numbers in _batches(len(seen), max(1, values // (classes * len(labels))), at_a_time)
            ]

    def path(self, l2s: Sequence[float], within_weight: float = WITHIN_WEIGHT) -> Iterator[list[SoftmaxHead]]:
        """Fit one head for each L2, lazily, each starting from the previous one, for all weightings at once.

        Args:
            l2s: Positive penalties; fastest from strong to weak.
            within_weight: Weight of the covariance within classes in the penalty.

        Yields:
            For each L2, a head for each weighting, on the CPU, with the standardization folded into its weights.
        """
        minima = [fits.start() for fits in self._batches]
        for l2 in l2s:
            # Not around `yield`: the caller computes with its own threads.
            with one_thread_each(self._shape, self._device) as at_a_time:
                tasks = list(zip(self._batches, minima, strict=True))
                minima = map_fits(
                    lambda task: minimize(task[0], self._matrix, task[1], l2, within_weight),  # noqa: B023
                    tasks,
                    at_a_time,
                )
                folded = [
                    self._matrix.designs[number].fold_back(found)
                    for fits, found_together in zip(self._batches, minima, strict=True)
                    for number, found in zip(fits.numbers, found_together, strict=True)
                ]
            yield [SoftmaxHead(weight=weight, bias=bias) for weight, bias in folded]

    def on_parts(
        self, heads: Sequence[SoftmaxHead], weightings: Sequence[Tensor], l2: float, within_weight: float
    ) -> list[SoftmaxHead]:
        """Fit the first F heads again, each on a part of its rows.

        Scales, coordinates, and the covariance within classes are those of all its rows, which costs a fraction of
        computing them anew. It lowers the error of small parts a little: see benchmarks/RESULTS.md.

        Args:
            heads: F heads to start from.
            weightings: float32 [N] for each: 0 for rows it is not fitted on; the mean of the others is 1.
            l2: The penalty.
            within_weight: Weight of the covariance within classes in the penalty.
        """
        with one_thread_each(self._shape, self._device) as at_a_time:

            def fit(numbers: Sequence[int]) -> list[SoftmaxHead]:
                own = [weightings[number] for number in numbers]
                matrix = self._matrix.parts(numbers, [weights > 0 for weights in own])
                fits = Fits.of(range(len(own)), matrix, self._labels, own, self._classes)
                starts = [self._matrix.designs[n].unfold(heads[n].weight, heads[n].bias) for n in numbers]
                minima = minimize(fits, matrix, torch.stack(starts), l2, within_weight)
                folded = [design.fold_back(found) for design, found in zip(matrix.designs, minima, strict=True)]
                return [SoftmaxHead(weight=weight, bias=bias) for weight, bias in folded]

            rows = max(int((weights > 0).sum()) for weights in weightings)
            together = max(1, CACHED_VALUES // (self._classes * rows))
            found = map_fits(fit, _batches(len(weightings), together, at_a_time), at_a_time)
        return [head for batch in found for head in batch]


def _batches(count: int, together: int, at_a_time: int) -> list[range]:
    """Divide numbers below `count` into batches of at most `together`, and into at least `at_a_time`."""
    together = min(together, math.ceil(count / at_a_time))
    return [range(count)[start : start + together] for start in range(0, count, together)]


def fit_paths(
    features: Tensor | Rows,
    labels: Tensor,
    weightings: Sequence[Tensor],
    *,
    classes: int,
    l2s: Sequence[float],
    within_weight: float = WITHIN_WEIGHT,
    device: str = "cpu",
) -> Iterator[list[SoftmaxHead]]:
    """Fit and yield the heads of `HeadFits.path`; the arguments are its and those of `HeadFits`."""
    yield from HeadFits(features, labels, weightings, classes=classes, device=device).path(l2s, within_weight)
