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
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

import torch
from torch import Tensor

from tlcli.training.head.standardization import (
    FeatureMatrix,
    MatrixInMemory,
    Rows,
    StreamedMatrix,
    read_blocks,
)
from tlcli.training.head.threads import map_fits, one_thread_each

BIAS_L2 = 1e-6
"""Negligible, but without it the bias of a class without rows would diverge to minus infinity."""
TOLERANCE = 3e-6
"""A fit ends when its objective is within this fraction of the minimum, as estimated by the preconditioner.
With a strong L2, the minimum is close to the entropy of the class frequencies; then, the difference counts."""
MAX_STEPS = 1000
MEMORY = 10
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


def fit_paths(
    features: Tensor | Rows,
    labels: Tensor,
    weightings: Sequence[Tensor],
    *,
    classes: int,
    l2s: Sequence[float],
    device: str = "cpu",
) -> Iterator[list[SoftmaxHead]]:
    """Fit one head for each L2, lazily, each starting from the previous one, for several weightings at once.

    Minimizes `mean(weight * cross-entropy) + l2 / 2 * trace(W P W^T)` over weights W on scaled features and a bias.
    P mixes the identity and the covariance within classes; see `standardization`. Means, scales, and P are those of the
    rows with a weight; a constant feature gets weight 0.

    Args:
        features: float32 [N, D], N >= 1, in memory, or streamed rows.
        labels: int64 [N]; classes without a row are allowed.
        weightings: float32 [N] for each fit: 0 for rows it is not fitted on; the mean of the others is 1.
        classes: Number of classes k.
        l2s: Positive penalties; fastest from strong to weak.
        device: `cpu` or a CUDA device.

    Yields:
        For each L2, a head for each weighting, on the CPU, with the standardization folded into its weights.

    Raises:
        DataError: a feature is NaN or infinite (raised when the first heads are computed).
    """
    # Not around `yield`: the caller computes with its own threads.
    with one_thread_each(features.shape, device) as at_a_time:
        seen = [weights > 0 for weights in weightings]
        matrix: FeatureMatrix
        if isinstance(features, Tensor):
            matrix, values = MatrixInMemory(features, labels, seen, device, at_a_time), CACHED_VALUES
        else:
            matrix, values = StreamedMatrix(features, labels, seen, device), STREAMED_VALUES
        together = max(1, values // (classes * len(labels)))
        together = min(together, math.ceil(len(seen) / at_a_time))
        batches = [
            _Fits.of(range(len(seen))[start : start + together], matrix, labels, weightings, classes)
            for start in range(0, len(seen), together)
        ]
        minima = [fits.start() for fits in batches]
    for l2 in l2s:
        with one_thread_each(features.shape, device) as at_a_time:
            tasks = list(zip(batches, minima, strict=True))
            minima = map_fits(lambda task: _minimize(task[0], matrix, task[1], l2), tasks, at_a_time)  # noqa: B023
            folded = [
                matrix.designs[number].fold_back(found)
                for fits, found_together in zip(batches, minima, strict=True)
                for number, found in zip(fits.numbers, found_together, strict=True)
            ]
        yield [SoftmaxHead(weight=weight, bias=bias) for weight, bias in folded]


@dataclass(frozen=True, kw_only=True)
class _Fits:
    """Rows, labels and weights of F fits that take their steps together: everything but the L2."""

    numbers: list[int]
    """Of their designs in the matrix."""
    labels: Tensor
    """int64 [F, N]; fits with fewer rows than others have rows without weight in the end."""
    shares: Tensor
    """float32 [F, N], the weight of each row in the mean."""
    variances: Tensor
    """float32 [F, r + 1]."""
    penalties: Tensor
    """float32 [F, r + 1]."""
    classes: int

    @classmethod
    def of(
        cls,
        numbers: Sequence[int],
        matrix: FeatureMatrix,
        labels: Tensor,
        weightings: Sequence[Tensor],
        classes: int,
    ) -> _Fits:
        """Collect the fits with these numbers."""
        designs = [matrix.designs[number] for number in numbers]
        fits = torch.zeros(len(numbers), matrix.height, dtype=torch.int64), torch.zeros(len(numbers), matrix.height)
        for own_labels, own_shares, number, design in zip(*fits, numbers, designs, strict=True):
            rows, weights = slice(None) if design.members is None else design.members, weightings[number]
            own_labels[: len(labels[rows])] = labels[rows]
            own_shares[: len(labels[rows])] = weights[rows] / (weights > 0).sum()
        device = designs[0].variances.device
        return cls(
            numbers=list(numbers),
            labels=fits[0].to(device),
            shares=fits[1].to(device),
            variances=torch.stack([design.variances for design in designs]),
            penalties=torch.stack([design.penalties for design in designs]),
            classes=classes,
        )

    def keep(self, kept: Tensor) -> _Fits:
        """Return some of the fits, given by bool [F]."""
        return _Fits(
            numbers=list(compress(self.numbers, kept.tolist())),
            labels=self.labels[kept],
            shares=self.shares[kept],
            variances=self.variances[kept],
            penalties=self.penalties[kept],
            classes=self.classes,
        )

    def frequencies(self) -> Tensor:
        """Return the share of each class: [F, k]."""
        shares = self.shares.new_zeros(len(self.numbers), self.classes)
        return shares.scatter_add_(1, self.labels, self.shares)

    def start(self) -> Tensor:
        """Return the minima for an infinite L2, [F, k, r + 1]: biases at the log class frequencies, weights at 0."""
        logs = self.frequencies().clamp_min(1e-5).log()
        coefficients = logs.new_zeros(*logs.shape, self.variances.shape[1])
        coefficients[:, :, -1] = logs - logs.mean(dim=1, keepdim=True)
        return coefficients

    def mean(self, values: Tensor) -> Tensor:
        """Return the weighted means over the rows: [F, k, N] to [F, k]."""
        return torch.bmm(values, self.shares[:, :, None])[:, :, 0]

    def of_targets(self, values: Tensor) -> Tensor:
        """Return the weighted mean of the value of each image's own class: [F, k, N] to [F]."""
        return self.mean(values.gather(1, self.labels[:, None]))[:, 0]

    def residuals(self, probability: Tensor) -> Tensor:
        """Return weighted probabilities minus weighted targets: [F, k, N]."""
        residuals = probability * self.shares[:, None]
        return residuals.scatter_add_(1, self.labels[:, None], -self.shares[:, None])


def _minimize(fits: _Fits, matrix: FeatureMatrix, coefficients: Tensor, l2: float) -> Tensor:
    """Run preconditioned L-BFGS from `coefficients` [F, k, r + 1] to the minima for this L2.

    Fits take their steps together, each with its own length, until their own end.
    """
    minima, left = torch.empty_like(coefficients), torch.arange(len(coefficients), device=coefficients.device)
    ridge = l2 * fits.penalties[:, None]
    ridge[:, :, -1] = BIAS_L2
    frequencies = fits.frequencies()
    entropy = -torch.special.xlogy(frequencies, frequencies).sum(dim=1)

    logits = matrix.products(fits.numbers, coefficients)
    probability = torch.softmax(logits, dim=1)
    gradient = matrix.pullbacks(fits.numbers, fits.residuals(probability)) + ridge * coefficients
    history: deque[tuple[Tensor, Tensor]] = deque(maxlen=MEMORY)
    stuck = torch.zeros_like(left, dtype=torch.bool)
    for steps in range(MAX_STEPS + 1):
        curvature = fits.mean(probability * (1 - probability))
        preconditioner = 1 / (curvature[:, :, None] * fits.variances[:, None] + ridge)
        gap = _sums(preconditioner * gradient.square()) / 2
        cross_entropy = fits.mean(logits.logsumexp(dim=1, keepdim=True))[:, 0] - fits.of_targets(logits)
        objective = cross_entropy + _sums(ridge * coefficients.square()) / 2
        near = gap <= TOLERANCE * torch.minimum(objective, entropy - objective).clamp_min(1e-3)
        going = ~(near | stuck) if steps < MAX_STEPS else torch.zeros_like(stuck)
        if not going.all():
            minima[left[~going]] = coefficients[~going]
            if not going.any():
                break
            fits = fits.keep(going)
            history = deque([(step[going], change[going]) for step, change in history], MEMORY)
            left, entropy, ridge, coefficients, logits, gradient, preconditioner = (
                part[going] for part in (left, entropy, ridge, coefficients, logits, gradient, preconditioner)
            )
        direction = -_solve(history, preconditioner, gradient)
        towards = matrix.products(fits.numbers, direction)
        lengths, probability = _line_search(
            fits,
            logits,
            towards,
            slope=_sums(ridge * coefficients * direction) - fits.of_targets(towards),
            bend=_sums(ridge * direction.square()),
            fall=_sums(gradient * direction),
        )
        step = lengths[:, None, None] * direction
        coefficients, logits = coefficients + step, logits.addcmul_(towards, lengths[:, None, None])
        previous = gradient
        gradient = matrix.pullbacks(fits.numbers, fits.residuals(probability)) + ridge * coefficients
        history.append((step, gradient - previous))
        stuck = ~(_sums(step * (gradient - previous)) > 0)  # the curvature is lost in rounding
    # At the minimum, coefficients sum to 0 over classes: a common shift changes no probability, but costs ridge.
    return minima - minima.mean(dim=1, keepdim=True)


def _sums(values: Tensor) -> Tensor:
    """Return the sum for each fit: [F, ...] to [F]."""
    return values.flatten(start_dim=1).sum(dim=1)


def _line_search(
    fits: _Fits, logits: Tensor, towards: Tensor, *, slope: Tensor, bend: Tensor, fall: Tensor
) -> tuple[Tensor, Tensor]:
    """Find step lengths by Newton's method on the slopes of the objectives, kept inside the brackets of their zeros.

    Args:
        fits: F fits.
        logits: [F, k, N], at the start of the lines.
        towards: [F, k, N], the change of the logits per unit of length.
        slope: [F], slopes of the linear and quadratic terms of the objectives at the start.
        bend: [F], curvatures of the quadratic terms, constant along the lines.
        fall: [F], slopes of the whole objectives at the start; negative.

    Returns:
        Lengths [F] at which the slopes have fallen to a tenth, and the probabilities [F, k, N] there.
    """
    lengths, low, high = torch.ones_like(fall), torch.zeros_like(fall), torch.full_like(fall, float("inf"))
    for _ in range(30):
        probability = torch.softmax(torch.addcmul(logits, towards, lengths[:, None, None]), dim=1)
        moment = probability * towards
        mean = moment.sum(dim=1, keepdim=True)
        here = fits.mean(mean)[:, 0] + slope + lengths * bend
        going = here.abs() > 0.1 * fall.abs()
        if not going.any():
            break
        low, high = torch.where(here < 0, lengths, low), torch.where(here < 0, high, lengths)
        spread = fits.mean((moment * towards).sum(dim=1, keepdim=True) - mean.square())[:, 0]
        newton = lengths - here / (spread + bend)
        middle = torch.where(high < float("inf"), (low + high) / 2, 2 * low)
        newton = torch.where((low < newton) & (newton < high), newton, middle)
        lengths = torch.where(going, newton, lengths)
    return lengths, probability


def _solve(history: deque[tuple[Tensor, Tensor]], preconditioner: Tensor, gradient: Tensor) -> Tensor:
    """Run the two-loop recursion of L-BFGS: return approximately the inverse Hessians times `gradient`.

    Args:
        history: The last steps and the gradient changes they caused, each [F, k, r + 1], oldest first.
        preconditioner: [F, k, r + 1], initial estimates of the inverses of the Hessians' diagonals.
        gradient: [F, k, r + 1].
    """
    result = gradient.clone()
    pulls = []
    for step, change in reversed(history):
        pulls.append((_sums(step * result) / _sums(step * change))[:, None, None])
        result -= pulls[-1] * change
    result *= preconditioner
    if history:
        step, change = history[-1]
        result *= (_sums(step * change) / _sums(preconditioner * change.square()))[:, None, None]
    for (step, change), pull in zip(history, reversed(pulls), strict=True):
        result += (pull - (_sums(change * result) / _sums(step * change))[:, None, None]) * step
    return result
