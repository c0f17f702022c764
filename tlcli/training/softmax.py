"""Softmax regression on all features at once: the convex head of a frozen backbone.

Shapes: N pictures, D features, k classes, r = min(N, D) coordinates after rotation. Inside this file
everything is class-major, [k, N] and [k, r + 1]: with few classes those products run about three
times as fast on a CPU as their transposes.

How it gets fast without giving up the exact minimum:

- Features are standardised and rotated once into the eigenvectors of their covariance, where the
  Hessian is nearly diagonal: it is bounded by a Kronecker product of a [k, k] matrix and the
  covariance (Boehning 1992, "Multinomial logistic regression algorithm"). With fewer pictures than
  features the rotation also drops the directions no picture has.
- L-BFGS (Nocedal 1980) starts every step from the inverse of that diagonal; logits are linear in the
  weights, so a line search costs no product with the features.
- A path of L2 values goes from strong to weak, each fit starting from the one before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tlcli.errors import DataError

BIAS_L2 = 1e-6
"""Next to nothing, but without it the bias of a class that has no row would run to minus infinity."""
TOLERANCE = 3e-6
"""A fit ends when its objective is, by the preconditioner's estimate, within this share of its minimum."""
MAX_STEPS = 1000
MEMORY = 10
ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True)
class SoftmaxHead:
    """A linear classifier on raw features."""

    weight: Tensor
    """float32 [k, D], on the CPU."""
    bias: Tensor
    """float32 [k], on the CPU."""

    def logits(self, features: Tensor) -> Tensor:
        """Class scores before the softmax: features float32 [N, D] to float32 [N, k]."""
        return torch.nn.functional.linear(features, self.weight, self.bias)


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Weigh every picture by the inverse frequency of its class.

    Args:
        labels: int64 [N].
        classes: Number of classes; those without a picture are left out of the account.

    Returns:
        float32 [N] with mean 1; the weights of each class present add up to the same sum.
    """
    counts = torch.bincount(labels, minlength=classes)
    return (len(labels) / (counts > 0).sum() / counts[labels]).to(torch.float32)


def fit_path(
    features: Tensor,
    labels: Tensor,
    *,
    classes: int,
    l2s: Sequence[float],
    sample_weights: Tensor | None = None,
    device: str = "cpu",
) -> Iterator[SoftmaxHead]:
    """Fit one head for each L2, lazily, each starting from the one before.

    Minimises `mean(weight * cross-entropy) + l2 / 2 * ||W||^2` over weights W on standardised features
    (mean and standard deviation of these rows; a constant feature gets weight 0) and a free bias.

    Args:
        features: float32 [N, D], N >= 1.
        labels: int64 [N]; classes without a row are allowed.
        classes: Number of classes k.
        l2s: Positive penalties; fastest from strong to weak.
        sample_weights: float32 [N] with mean 1, or None for all ones.
        device: Where to compute: "cpu" or a CUDA device.

    Yields:
        A head on the CPU for each L2, with the standardisation folded back into it.

    Raises:
        DataError: A feature is not finite (raised when the first head is asked for).
    """
    design = _Design.of(features, device)
    weights = torch.ones(len(labels)) if sample_weights is None else sample_weights
    problem = _Problem.of(design, labels.to(device), weights.to(device), classes)
    coefficients = problem.start()
    for l2 in l2s:
        coefficients = problem.minimise(coefficients, l2)
        yield design.fold_back(coefficients)


@dataclass(frozen=True)
class _Design:
    """The rows as the optimiser sees them: standardised, rotated, with a last column of ones."""

    rows: Tensor
    """float32 [N, r + 1]."""
    variances: Tensor
    """float32 [r + 1], mean squares of the columns of `rows`."""
    rotation: Tensor
    """float32 [D, r] with orthonormal columns."""
    mean: Tensor
    """float64 [D], on the CPU."""
    std: Tensor
    """float64 [D], on the CPU."""

    @classmethod
    def of(cls, features: Tensor, device: str) -> _Design:
        mean, std = _mean_and_std(features)
        chunks = torch.split(features, ROWS_AT_ONCE)
        standardised = torch.cat([((c - mean) / std).to(torch.float32).to(device) for c in chunks])
        if features.shape[0] < features.shape[1]:
            basis = torch.linalg.qr(standardised.T).Q
            rotation = basis @ _principal_axes(standardised @ basis)
        else:
            rotation = _principal_axes(standardised)
        rotated = standardised @ rotation
        rows = torch.cat([rotated, rotated.new_ones(len(rotated), 1)], dim=1)
        return cls(rows, rows.square().mean(dim=0), rotation, mean, std)

    def fold_back(self, coefficients: Tensor) -> SoftmaxHead:
        """Coefficients [k, r + 1] of `rows` as a head on raw features."""
        weight = (coefficients[:, :-1] @ self.rotation.T).cpu().double() / self.std
        bias = coefficients[:, -1].cpu().double() - weight @ self.mean
        return SoftmaxHead(weight=weight.float(), bias=bias.float())


def _mean_and_std(features: Tensor) -> tuple[Tensor, Tensor]:
    """Column means and standard deviations, float64 [D]; a constant column gets infinity, hence weight 0."""
    chunks = torch.split(features, ROWS_AT_ONCE)
    mean = torch.stack([chunk.double().sum(dim=0) for chunk in chunks]).sum(dim=0) / len(features)
    squares = torch.stack([(chunk - mean).square().sum(dim=0) for chunk in chunks]).sum(dim=0)
    std = (squares / len(features)).sqrt()
    if not torch.isfinite(std).all():
        raise DataError(
            f"{int((~torch.isfinite(std)).sum())} of {len(std)} features hold NaN or infinity, so no head can be "
            "fitted. Check the weights of the backbone, or use --precision fp32."
        )
    # What float32 cannot tell from a constant would be noise blown up to variance 1.
    constant = std <= 1e-6 * mean.abs() + 1e-30
    return mean, std.masked_fill(constant, float("inf"))


def _principal_axes(rows: Tensor) -> Tensor:
    """Eigenvectors of the covariance of centred rows [N, r], as columns [r, r]."""
    axes: Tensor = torch.linalg.eigh(rows.T @ rows).eigenvectors
    return axes


@dataclass(frozen=True)
class _Problem:
    """Rows, labels and weights; everything but the L2."""

    design: _Design
    targets: Tensor
    """float32 [k, N], one-hot columns."""
    shares: Tensor
    """float32 [N], the weight of each row in the mean."""

    @classmethod
    def of(cls, design: _Design, labels: Tensor, weights: Tensor, classes: int) -> _Problem:
        targets = torch.zeros(classes, len(labels), device=labels.device)
        targets.scatter_(0, labels[None], 1.0)
        return cls(design, targets, weights / len(labels))

    def start(self) -> Tensor:
        """The minimum under an infinite L2: biases at the log class frequencies, weights at 0."""
        frequency = (self.targets @ self.shares).clamp_min(1e-5)
        coefficients = torch.zeros(len(self.targets), self.design.rows.shape[1], device=frequency.device)
        coefficients[:, -1] = frequency.log() - frequency.log().mean()
        return coefficients

    def minimise(self, coefficients: Tensor, l2: float) -> Tensor:
        """Preconditioned L-BFGS from `coefficients` [k, r + 1] to the minimum for this L2."""
        rows = self.design.rows
        ridge = torch.full_like(self.design.variances, l2)
        ridge[-1] = BIAS_L2

        logits = coefficients @ rows.T
        probability = torch.softmax(logits, dim=0)
        gradient = ((probability - self.targets) * self.shares) @ rows + ridge * coefficients
        history: deque[tuple[Tensor, Tensor]] = deque(maxlen=MEMORY)
        for _ in range(MAX_STEPS):
            curvature = (probability * (1 - probability)) @ self.shares
            preconditioner = 1 / (curvature[:, None] * self.design.variances + ridge)
            gap = float((preconditioner * gradient.square()).sum()) / 2
            if gap <= TOLERANCE * max(self._objective(coefficients, logits, ridge), 1e-3):
                break
            direction = -_solve(history, preconditioner, gradient)
            towards = direction @ rows.T
            on_targets = (self.targets * towards).sum(dim=0) @ self.shares
            length, probability = _line_search(
                logits,
                towards,
                self.shares,
                slope=float((ridge * coefficients * direction).sum() - on_targets),
                bend=float((ridge * direction.square()).sum()),
                fall=float((gradient * direction).sum()),
            )
            step = length * direction
            coefficients, logits = coefficients + step, logits + length * towards
            previous = gradient
            gradient = ((probability - self.targets) * self.shares) @ rows + ridge * coefficients
            change = gradient - previous
            if not float((step * change).sum()) > 0:  # rounding has eaten the curvature: no more to be gained
                break
            history.append((step, change))
        # The minimum adds up to 0 over classes: a common shift changes no probability and costs ridge.
        return coefficients - coefficients.mean(dim=0)

    def _objective(self, coefficients: Tensor, logits: Tensor, ridge: Tensor) -> float:
        cross_entropy = -(torch.log_softmax(logits, dim=0) * self.targets).sum(dim=0) @ self.shares
        return float(cross_entropy + (ridge * coefficients.square()).sum() / 2)


def _line_search(
    logits: Tensor, towards: Tensor, shares: Tensor, *, slope: float, bend: float, fall: float
) -> tuple[float, Tensor]:
    """Newton's method on the slope of the objective along a line, kept inside the bracket of its zero.

    Args:
        logits: [k, N], where the line begins.
        towards: [k, N], what a step of length 1 adds to the logits.
        shares: [N], weights of the rows.
        slope: Of the linear and quadratic terms of the objective, at the beginning.
        bend: Of the quadratic terms, the same everywhere.
        fall: Slope of the whole objective at the beginning, negative.

    Returns:
        The length where the slope has shrunk to a tenth, and the probabilities [k, N] there.
    """
    length, low, high = 1.0, 0.0, float("inf")
    for _ in range(30):
        probability = torch.softmax(logits + length * towards, dim=0)
        moment = probability * towards
        mean = moment.sum(dim=0)
        here = float(mean @ shares) + slope + length * bend
        if abs(here) <= 0.1 * abs(fall):
            break
        low, high = (length, high) if here < 0 else (low, length)
        length -= here / (float(((moment * towards).sum(dim=0) - mean.square()) @ shares) + bend)
        if not low < length < high:
            length = (low + high) / 2 if high < float("inf") else 2 * low
    return length, probability


def _solve(history: deque[tuple[Tensor, Tensor]], preconditioner: Tensor, gradient: Tensor) -> Tensor:
    """The two-loop recursion of L-BFGS: approximately the inverse Hessian times `gradient`.

    Args:
        history: The last steps and the gradient changes they caused, each [k, r + 1], oldest first.
        preconditioner: [k, r + 1], a first guess at the inverse of the Hessian's diagonal.
        gradient: [k, r + 1].
    """
    result = gradient.clone()
    pulls = []
    for step, change in reversed(history):
        pulls.append((step * result).sum() / (step * change).sum())
        result -= pulls[-1] * change
    result *= preconditioner
    if history:
        step, change = history[-1]
        result *= (step * change).sum() / (preconditioner * change.square()).sum()
    for (step, change), pull in zip(history, reversed(pulls), strict=True):
        result += (pull - (change * result).sum() / (step * change).sum()) * step
    return result
