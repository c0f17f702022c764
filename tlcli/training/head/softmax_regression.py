"""Softmax regression on all features at once: the exact fit of the head of a frozen backbone.

Shapes: N images, D features, k classes, r <= D coordinates after rotation. Inside this file
everything is class-major, [k, N] and [k, r + 1]; see `standardization`.

What makes it fast without giving up the exact minimum:

- Features are scaled and rotated once into the eigenvectors of their covariance within classes, where the
  Hessian is nearly diagonal: it is bounded by a Kronecker product of a [k, k] matrix and the
  covariance (Boehning 1992, "Multinomial logistic regression algorithm"). With fewer images than
  features, the rotation also drops directions in which images do not vary.
- L-BFGS (Nocedal 1980) starts every step from the inverse of that diagonal; logits are linear in the
  weights, so a line search costs no product with the features.
- A path of L2 values goes from strong to weak, each fit starting from the one before.
- Features that do not fit into memory are streamed; several fits (the folds of a cross-validation) share every pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tlcli.training.head.standardization import (
    FeatureMatrix,
    MatrixInMemory,
    Product,
    Request,
    Rows,
    StandardizedRows,
    StreamedMatrix,
    TransposedProduct,
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
TOGETHER_BYTES = 2**32
"""Memory for fits of streamed rows that share passes. A single fit may exceed it."""
ARRAYS = 7
"""Number of float32 [k, N] arrays that a fit holds at a time."""


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


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Weight every image by the inverse frequency of its class.

    Args:
        labels: int64 [N].
        classes: Number of classes. Classes without images are ignored.

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
    """Fit one head for each L2, lazily, each starting from the previous one, for several weightings at once.

    Minimizes `mean(weight * cross-entropy) + l2 / 2 * trace(W P W^T)` over weights W on scaled features and a bias.
    P mixes the identity and the covariance within classes; see `standardization`. Means, scales, and P are those of the
    rows with a weight; a constant feature gets weight 0.

    Args:
        features: float32 [N, D], N >= 1, in memory, or streamed rows.
        labels: int64 [N]; classes without a row are allowed.
        weightings: float32 [N] for each fit: 0 for rows that it must not see; the mean of the others is 1.
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
            matrix, together = MatrixInMemory(features, labels, seen, device, at_a_time), 1
        else:
            matrix = StreamedMatrix(features, labels, seen, device)
            together = max(1, TOGETHER_BYTES // (ARRAYS * 4 * classes * len(labels)))
        problems = []
        for design, weights, mask in zip(matrix.designs, weightings, seen, strict=True):
            rows = slice(None) if design.members is None else design.members
            problems.append(_Problem(design, labels[rows].to(device), (weights[rows] / mask.sum()).to(device), classes))
        coefficients = [problem.start() for problem in problems]
    groups = [range(len(problems))[start : start + together] for start in range(0, len(problems), together)]
    for l2 in l2s:
        fits = [
            {number: problems[number].minimize(coefficients[number], l2) for number in numbers} for numbers in groups
        ]
        with one_thread_each(features.shape, device) as at_a_time:
            for minima in map_fits(lambda some: _minimize(some, matrix), fits, at_a_time):
                for number, found in minima.items():
                    coefficients[number] = found
            folded = [problem.design.fold_back(found) for problem, found in zip(problems, coefficients, strict=True)]
        yield [SoftmaxHead(weight=weight, bias=bias) for weight, bias in folded]


Fit = Generator[Request, Tensor, Tensor]
"""A coroutine that yields requests for products with the rows, and returns the minimum."""


def _minimize(fits: dict[int, Fit], matrix: FeatureMatrix) -> dict[int, Tensor]:
    """Run several fits to their minima, answering their requests together."""
    requests = {number: next(fit) for number, fit in fits.items()}
    found = {}
    while requests:
        for number, answer in zip(list(requests), matrix.answer(list(requests.items())), strict=True):
            try:
                requests[number] = fits[number].send(answer)
            except StopIteration as done:
                found[number] = done.value
                del requests[number]
    return found


@dataclass(frozen=True)
class _Problem:
    """Rows, labels and weights of a fit: everything but the L2."""

    design: StandardizedRows
    labels: Tensor
    """int64 [N]"""
    shares: Tensor
    """float32 [N], the weight of each row in the mean"""
    classes: int

    def start(self) -> Tensor:
        """Return the minimum for an infinite L2: biases at the log class frequencies, weights at 0."""
        frequency = torch.bincount(self.labels, self.shares, minlength=self.classes).float().clamp_min(1e-5)
        coefficients = torch.zeros(self.classes, len(self.design.variances), device=frequency.device)
        coefficients[:, -1] = frequency.log() - frequency.log().mean()
        return coefficients

    def minimize(self, coefficients: Tensor, l2: float) -> Fit:
        """Run preconditioned L-BFGS from `coefficients` [k, r + 1] to the minimum for this L2."""
        ridge = l2 * self.design.penalties
        ridge[-1] = BIAS_L2
        frequency = torch.bincount(self.labels, self.shares, minlength=self.classes)
        entropy = float(-torch.special.xlogy(frequency, frequency).sum())

        logits = yield Product(coefficients)
        probability = torch.softmax(logits, dim=0)
        gradient = (yield TransposedProduct(self._residuals(probability))) + ridge * coefficients
        history: deque[tuple[Tensor, Tensor]] = deque(maxlen=MEMORY)
        for _ in range(MAX_STEPS):
            curvature = (probability * (1 - probability)) @ self.shares
            preconditioner = 1 / (curvature[:, None] * self.design.variances + ridge)
            gap = float((preconditioner * gradient.square()).sum()) / 2
            objective = self._objective(coefficients, logits, ridge)
            if gap <= TOLERANCE * max(min(objective, entropy - objective), 1e-3):
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
            gradient = (yield TransposedProduct(self._residuals(probability))) + ridge * coefficients
            change = gradient - previous
            if (
                not float((step * change).sum()) > 0
            ):  # the curvature is lost in rounding: no further progress is possible
                break
            history.append((step, change))
        # At the minimum, coefficients sum to 0 over classes: a common shift changes no probability, but costs ridge.
        return coefficients - coefficients.mean(dim=0)

    def _of_targets(self, values: Tensor) -> Tensor:
        """Return the value of each image's own class: [k, N] to [N]."""
        return values.gather(0, self.labels[None])[0]

    def _residuals(self, probability: Tensor) -> Tensor:
        """Return weighted probabilities minus weighted targets: [k, N]."""
        residuals = probability * self.shares
        return residuals.scatter_add_(0, self.labels[None], -self.shares[None])

    def _objective(self, coefficients: Tensor, logits: Tensor, ridge: Tensor) -> float:
        cross_entropy = (logits.logsumexp(dim=0) - self._of_targets(logits)) @ self.shares
        return float(cross_entropy + (ridge * coefficients.square()).sum() / 2)


def _line_search(
    logits: Tensor, towards: Tensor, shares: Tensor, *, slope: float, bend: float, fall: float
) -> tuple[float, Tensor]:
    """Find a step length by Newton's method on the slope of the objective, kept inside the bracket of its zero.

    Args:
        logits: [k, N], at the start of the line.
        towards: [k, N], the change of the logits per unit of length.
        shares: [N], weights of the rows.
        slope: Slope of the linear and quadratic terms of the objective at the start.
        bend: Curvature of the quadratic terms, constant along the line.
        fall: Slope of the whole objective at the start; negative.

    Returns:
        A length at which the slope has fallen to a tenth, and the probabilities [k, N] there.
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
    """Run the two-loop recursion of L-BFGS: return approximately the inverse Hessian times `gradient`.

    Args:
        history: The last steps and the gradient changes they caused, each [k, r + 1], oldest first.
        preconditioner: [k, r + 1], an initial estimate of the inverse of the Hessian's diagonal.
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
