"""Softmax regression on all features at once: the convex head of a frozen backbone.

Shapes: N images, D features, k classes, r <= D coordinates after rotation. Inside this file
everything is class-major, [k, N] and [k, r + 1]; see `design`.

How it gets fast without giving up the exact minimum:

- Features are standardized and rotated once into the eigenvectors of their covariance, where the
  Hessian is nearly diagonal: it is bounded by a Kronecker product of a [k, k] matrix and the
  covariance (Boehning 1992, "Multinomial logistic regression algorithm"). With fewer images than
  features the rotation also drops the directions no image has.
- L-BFGS (Nocedal 1980) starts every step from the inverse of that diagonal; logits are linear in the
  weights, so a line search costs no product with the features.
- A path of L2 values goes from strong to weak, each fit starting from the one before.
- What doesn't fit into memory is streamed, and several fits (the folds of a cross-validation) share every pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tlcli.training.head.standardization import (
    Design,
    Matrix,
    Product,
    Pull,
    Request,
    Rows,
    Stream,
    WholeMatrix,
    read_blocks,
)

BIAS_L2 = 1e-6
"""Next to nothing, but without it the bias of a class that has no row would run to minus infinity."""
TOLERANCE = 3e-6
"""A fit ends when its objective is, by the preconditioner's estimate, within this share of its minimum."""
MAX_STEPS = 1000
MEMORY = 10
TOGETHER_BYTES = 2**32
"""That fits of streamed rows, which share passes, may take together; one alone takes what it takes."""
ARRAYS = 7
"""Of float32 [k, N] that a fit holds at a time."""


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

    def logits_of(self, rows: Rows) -> Tensor:
        """`logits` of rows that are read as they are needed: float32 [N, k]."""
        return torch.cat([self.logits(block) for _, block in read_blocks(rows)])


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Weigh every image by the inverse frequency of its class.

    Args:
        labels: int64 [N].
        classes: Number of classes; those without an image are left out of the account.

    Returns:
        float32 [N] with mean 1; the weights of each class present add up to the same sum.
    """
    counts = torch.bincount(labels, minlength=classes)
    return (len(labels) / (counts > 0).sum() / counts[labels]).to(torch.float32)


def fit_paths(
    features: Tensor | Rows,
    labels: Tensor,
    weightings: Sequence[Tensor],
    *,
    classes: int,
    l2s: Sequence[float],
    device: str = "cpu",
) -> Iterator[list[SoftmaxHead]]:
    """Fit one head for each L2, lazily, each starting from the one before; for several weightings of the rows at once.

    Minimizes `mean(weight * cross-entropy) + l2 / 2 * ||W||^2` over weights W on standardized features
    (mean and standard deviation of the rows with a weight; a constant feature gets weight 0) and a free bias.

    Args:
        features: float32 [N, D], N >= 1, in memory; or rows to be streamed.
        labels: int64 [N]; classes without a row are allowed.
        weightings: Of each fit, float32 [N]: 0 for rows that it must not see; the others' mean is 1.
        classes: Number of classes k.
        l2s: Positive penalties; fastest from strong to weak.
        device: Where to compute: "cpu" or a CUDA device.

    Yields:
        A head for each weighting, on the CPU, with the standardization folded back into it; for each L2.

    Raises:
        DataError: A feature is not finite (raised when the first heads are asked for).
    """
    seen = [weights > 0 for weights in weightings]
    matrix: Matrix
    if isinstance(features, Tensor):
        matrix, together = WholeMatrix(features, seen, device), 1
    else:
        matrix, together = Stream(features, seen, device), TOGETHER_BYTES // (ARRAYS * 4 * classes * len(labels))
    problems = []
    for design, weights, mask in zip(matrix.designs, weightings, seen, strict=True):
        rows = slice(None) if design.members is None else design.members
        problems.append(_Problem(design, labels[rows].to(device), (weights[rows] / mask.sum()).to(device), classes))
    together = max(1, together)
    coefficients = [problem.start() for problem in problems]
    for l2 in l2s:
        for start in range(0, len(problems), together):
            numbers = range(start, min(start + together, len(problems)))
            fits = {number: problems[number].minimize(coefficients[number], l2) for number in numbers}
            for number, found in _minimize(fits, matrix).items():
                coefficients[number] = found
        folded = [problem.design.fold_back(found) for problem, found in zip(problems, coefficients, strict=True)]
        yield [SoftmaxHead(weight=weight, bias=bias) for weight, bias in folded]


Fit = Generator[Request, Tensor, Tensor]
"""Asks a design for products until it knows the minimum, which it returns."""


def _minimize(fits: dict[int, Fit], matrix: Matrix) -> dict[int, Tensor]:
    """What fits of the designs of these numbers find, all asking the matrix together."""
    asked = {number: next(fit) for number, fit in fits.items()}
    found = {}
    while asked:
        for number, answer in zip(list(asked), matrix.answer(list(asked.items())), strict=True):
            try:
                asked[number] = fits[number].send(answer)
            except StopIteration as done:
                found[number] = done.value
                del asked[number]
    return found


@dataclass(frozen=True)
class _Problem:
    """Rows, labels and weights; everything but the L2."""

    design: Design
    labels: Tensor
    """int64 [N]"""
    shares: Tensor
    """float32 [N], the weight of each row in the mean"""
    classes: int

    def start(self) -> Tensor:
        """The minimum under an infinite L2: biases at the log class frequencies, weights at 0."""
        frequency = torch.bincount(self.labels, self.shares, minlength=self.classes).float().clamp_min(1e-5)
        coefficients = torch.zeros(self.classes, len(self.design.variances), device=frequency.device)
        coefficients[:, -1] = frequency.log() - frequency.log().mean()
        return coefficients

    def minimize(self, coefficients: Tensor, l2: float) -> Fit:
        """Preconditioned L-BFGS from `coefficients` [k, r + 1] to the minimum for this L2; asks for what needs rows."""
        ridge = torch.full_like(self.design.variances, l2)
        ridge[-1] = BIAS_L2

        logits = yield Product(coefficients)
        probability = torch.softmax(logits, dim=0)
        gradient = (yield Pull(self._residuals(probability))) + ridge * coefficients
        history: deque[tuple[Tensor, Tensor]] = deque(maxlen=MEMORY)
        for _ in range(MAX_STEPS):
            curvature = (probability * (1 - probability)) @ self.shares
            preconditioner = 1 / (curvature[:, None] * self.design.variances + ridge)
            gap = float((preconditioner * gradient.square()).sum()) / 2
            if gap <= TOLERANCE * max(self._objective(coefficients, logits, ridge), 1e-3):
                break
            direction = -_solve(history, preconditioner, gradient)
            towards = yield Product(direction)
            on_targets = self._of_targets(towards) @ self.shares
            length, probability = _line_search(
                logits,
                towards,
                self.shares,
                slope=float((ridge * coefficients * direction).sum() - on_targets),
                bend=float((ridge * direction.square()).sum()),
                fall=float((gradient * direction).sum()),
            )
            step = length * direction
            coefficients, logits = coefficients + step, logits.add_(towards, alpha=length)
            previous = gradient
            gradient = (yield Pull(self._residuals(probability))) + ridge * coefficients
            change = gradient - previous
            if not float((step * change).sum()) > 0:  # rounding has eaten the curvature: no more to be gained
                break
            history.append((step, change))
        # The minimum adds up to 0 over classes: a common shift changes no probability and costs ridge.
        return coefficients - coefficients.mean(dim=0)

    def _of_targets(self, values: Tensor) -> Tensor:
        """Of values [k, N], each image's own class: [N]."""
        return values.gather(0, self.labels[None])[0]

    def _residuals(self, probability: Tensor) -> Tensor:
        """Weighted probabilities minus weighted targets, [k, N]."""
        residuals = probability * self.shares
        return residuals.scatter_add_(0, self.labels[None], -self.shares[None])

    def _objective(self, coefficients: Tensor, logits: Tensor, ridge: Tensor) -> float:
        cross_entropy = (logits.logsumexp(dim=0) - self._of_targets(logits)) @ self.shares
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
