"""L-BFGS on several softmax regressions at once.

Shapes: F fits, N images, k classes, r coordinates after rotation. Everything is class-major, [F, k, N] and
[F, k, r + 1]; see `standardization`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import torch
from torch import Tensor

from tlcli.training.head.standardization import FeatureMatrix

BIAS_L2 = 1e-6
"""Negligible, but without it the bias of a class without rows would diverge to minus infinity."""
TOLERANCE = 3e-6
"""A fit ends when its objective is within this fraction of the minimum, as estimated by the preconditioner.
With a strong L2, the minimum is close to the entropy of the class frequencies; then, the difference counts."""
MAX_STEPS = 1000
MEMORY = 10


@dataclass(frozen=True, kw_only=True)
class Fits:
    """Rows, labels and weights of F fits that take their steps together: everything but the L2."""

    numbers: list[int]
    """Of their designs in the matrix."""
    labels: Tensor
    """int64 [F, N]; fits with fewer rows than others have rows without weight in the end."""
    shares: Tensor
    """float32 [F, N], the weight of each row in the mean."""
    variances: Tensor
    """float32 [F, r + 1]."""
    within: Tensor
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
    ) -> Fits:
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
            within=torch.stack([design.within for design in designs]),
            classes=classes,
        )

    def keep(self, kept: Tensor) -> Fits:
        """Return some of the fits, given by bool [F]."""
        return Fits(
            numbers=list(compress(self.numbers, kept.tolist())),
            labels=self.labels[kept],
            shares=self.shares[kept],
            variances=self.variances[kept],
            within=self.within[kept],
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


def minimize(fits: Fits, matrix: FeatureMatrix, coefficients: Tensor, l2: float, weight: float) -> Tensor:
    """Run preconditioned L-BFGS from `coefficients` [F, k, r + 1] to the minima for this L2.

    `weight` is that of the covariance within classes in the penalty; see `softmax_regression.HeadFits`.

    Fits take their steps together, each with its own length, until their own end.
    """
    minima, left = torch.empty_like(coefficients), torch.arange(len(coefficients), device=coefficients.device)
    ridge = l2 * torch.lerp(torch.ones_like(fits.within), fits.within, weight)[:, None]
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
    fits: Fits, logits: Tensor, towards: Tensor, *, slope: Tensor, bend: Tensor, fall: Tensor
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
