"""Standardized features in rotated coordinates, in which the head's optimizer works.

Features in memory are rotated once. Features on disk are never copied, but streamed for every product.

Shapes: N images, D features, k classes, r <= D coordinates after rotation. Everything is class-major, [k, N] and
[k, r + 1]: with few classes, these products are about three times as fast on a CPU as their transposes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tlcli.errors import DataError
from tlcli.training.head.threads import map_fits

BLOCK = 4096
"""Rows read at a time."""
SAMPLE = 32_768
"""Rows from which the rotation of streamed features is computed. It affects the optimizer's speed, not its result."""


class Rows(Protocol):
    """Features that are read as they are needed, for example from disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N and D."""

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Read rows `start` to `stop`: float32 [stop - start, D]."""


@dataclass(frozen=True)
class Product:
    """A request for coefficients [k, r + 1] times the rows: [k, N]."""

    coefficients: Tensor


@dataclass(frozen=True)
class TransposedProduct:
    """A request for residuals [k, N] times the transposed rows: [k, r + 1]."""

    residuals: Tensor


Request = Product | TransposedProduct


@dataclass(frozen=True, kw_only=True)
class StandardizedRows:
    """Some rows, standardized by their own mean and standard deviation, rotated, with a last column of ones."""

    members: Tensor | None
    """bool [N], the rows that take part in products; None for all, some of which may have weight 0."""
    variances: Tensor
    """float32 [r + 1], approximate mean squares of the columns."""
    mean: Tensor
    """float64 [D], on the CPU."""
    std: Tensor
    """float64 [D], on the CPU; infinite for a constant feature, so that its weight is 0."""
    rotation: Tensor
    """float32 [D, r] with orthonormal columns."""

    def fold_back(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Convert coefficients [k, r + 1] to weights [k, D] and bias [k] on raw features: float32, on the CPU."""
        weight = (coefficients[:, :-1] @ self.rotation.T).cpu().double() / self.std
        bias = coefficients[:, -1].cpu().double() - weight @ self.mean
        return weight.float(), bias.float()


class FeatureMatrix(Protocol):
    """Features, standardized for each of the sets of rows that a head is fitted on."""

    @property
    def designs(self) -> Sequence[StandardizedRows]:
        """One for each set of rows, in order."""

    def answer(self, requests: Sequence[tuple[int, Request]]) -> list[Tensor]:
        """Answer requests, each for the set of rows with the given number."""


class MatrixInMemory:
    """Features in memory, with a rotated copy for each set of rows.

    Args:
        features: float32 [N, D], N >= 1.
        masks: bool [N] for each set of rows.
        device: The device that holds the matrix.
        at_a_time: How many sets of rows to rotate at a time.

    Raises:
        DataError: a feature is NaN or infinite.
    """

    def __init__(self, features: Tensor, masks: Sequence[Tensor], device: str, at_a_time: int = 1) -> None:
        made = map_fits(
            lambda mask: _rotated(features if mask.all() else features[mask], mask, device), masks, at_a_time
        )
        self.designs = [design for design, _ in made]
        self._rows = [rows for _, rows in made]

    def answer(self, requests: Sequence[tuple[int, Request]]) -> list[Tensor]:
        """Answer requests, each for the set of rows with the given number."""
        return [
            request.coefficients @ self._rows[number].T
            if isinstance(request, Product)
            else request.residuals @ self._rows[number]
            for number, request in requests
        ]


def _rotated(features: Tensor, members: Tensor, device: str) -> tuple[StandardizedRows, Tensor]:
    mean = features.mean(dim=0, dtype=torch.float64).float()
    centered = features - mean
    norms = torch.linalg.vector_norm(centered, dim=0, dtype=torch.float64)
    std = _constant_to_infinity(mean, norms.div_(math.sqrt(len(features))).float())
    standardized = centered.div_(std).to(device)
    if features.shape[0] < features.shape[1]:
        basis = torch.linalg.qr(standardized.T).Q
        rotation = basis @ _principal_axes(standardized @ basis)
    else:
        rotation = _principal_axes(standardized)
    rotated = standardized @ rotation
    rows = torch.cat([rotated, rotated.new_ones(len(rotated), 1)], dim=1)
    variances = rows.square().mean(dim=0)
    return StandardizedRows(
        members=members, variances=variances, mean=mean.double(), std=std.double(), rotation=rotation
    ), rows


class StreamedMatrix:
    """Features that are read block by block for every product, in one pass for all requests made together.

    They are standardized by the mean and deviation of all rows. The difference to those of a set of rows is a gain and
    an offset, which are applied to the coefficients.

    Args:
        rows: float32 [N, D].
        masks: bool [N] for each set of rows.
        device: The device that computes with the rows.

    Raises:
        DataError: a feature is NaN or infinite.
    """

    def __init__(self, rows: Rows, masks: Sequence[Tensor], device: str) -> None:
        self._rows, self._device = rows, device
        means, stds = self._means_and_stds(masks)
        self._mean, self._std = means[-1].float(), stds[-1].float()
        step = max(1, rows.shape[0] // SAMPLE)
        sample = torch.cat(
            [block[::step].clone() for _, block in self._blocks()]
        )  # a view would keep its block in memory
        self._rotation = _principal_axes(sample)
        squares = (sample @ self._rotation).square().mean(dim=0)
        variances = torch.cat([squares, squares.new_ones(1)])
        self.designs = [
            StandardizedRows(members=None, variances=variances, mean=mean, std=std, rotation=self._rotation)
            for mean, std in zip(means[:-1], stds[:-1], strict=True)
        ]
        self._gains = [(self._std.double() / std).nan_to_num(0.0).float().to(device) for std in stds[:-1]]
        self._offsets = [
            ((self._mean.double() - mean) / std).float().to(device)
            for mean, std in zip(means[:-1], stds[:-1], strict=True)
        ]

    def answer(self, requests: Sequence[tuple[int, Request]]) -> list[Tensor]:
        """Answer requests, each for the set of rows with the given number, in one pass over the features."""
        count, width = self._rows.shape
        products = [(number, request.coefficients) for number, request in requests if isinstance(request, Product)]
        pulls = [request.residuals for _, request in requests if isinstance(request, TransposedProduct)]
        slopes = [coefficients[:, :-1] @ self._rotation.T for _, coefficients in products]
        shifts = [
            coefficients[:, -1] + slope @ self._offsets[number]
            for (number, coefficients), slope in zip(products, slopes, strict=True)
        ]
        weights = [slope * self._gains[number] for (number, _), slope in zip(products, slopes, strict=True)]
        made = [torch.empty(len(slope), count, device=self._device) for slope in slopes]
        pulled = [torch.zeros(len(residuals), width, device=self._device).double() for residuals in pulls]
        for at, block in self._blocks():
            for into, weight, shift in zip(made, weights, shifts, strict=True):
                torch.addmm(shift[:, None], weight, block.T, out=into[:, at])
            for into, residuals in zip(pulled, pulls, strict=True):
                into.add_(residuals[:, at] @ block)
        answers, products_made, pulls_made = [], iter(made), iter(pulled)
        for number, request in requests:
            if isinstance(request, Product):
                answers.append(next(products_made))
                continue
            total = request.residuals.sum(dim=1, keepdim=True)
            slope = next(pulls_made).float() * self._gains[number] + total * self._offsets[number]
            answers.append(torch.cat([slope @ self._rotation, total], dim=1))
        return answers

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield the positions of some rows, and the standardized rows float32 [n, D]."""
        for at, block in read_blocks(self._rows):
            yield at, block.sub_(self._mean).div_(self._std).to(self._device)

    def _means_and_stds(self, masks: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return means and standard deviations, float64 [D], of each set of rows, then of all rows."""
        members = torch.stack([*masks, torch.ones_like(masks[0])]).double()
        sums, squares = torch.zeros(2, len(members), self._rows.shape[1], dtype=torch.float64)
        for at, block in read_blocks(self._rows):
            values = block.double()
            sums += members[:, at] @ values
            squares += members[:, at] @ values.square_()
        counts = members.sum(dim=1, keepdim=True)
        means = sums / counts
        stds = (squares / counts - means.square()).clamp_min(0).sqrt()
        return list(means), [_constant_to_infinity(mean, std) for mean, std in zip(means, stds, strict=True)]


def read_blocks(rows: Rows) -> Iterator[tuple[slice, Tensor]]:
    """Yield the positions of some rows, and writable copies float32 [n, D]."""
    for start in range(0, rows.shape[0], BLOCK):
        at = slice(start, min(start + BLOCK, rows.shape[0]))
        yield at, torch.from_numpy(rows.read(at.start, at.stop))


def _constant_to_infinity(mean: Tensor, std: Tensor) -> Tensor:
    if not torch.isfinite(std).all():
        raise DataError(
            f"{int((~torch.isfinite(std)).sum())} of {len(std)} features hold NaN or infinity, so no head can be "
            "fitted. Check the weights of the backbone, or use --precision fp32."
        )
    # A feature that float32 cannot tell from a constant would be noise scaled up to variance 1.
    return std.masked_fill(std <= 1e-6 * mean.abs() + 1e-30, float("inf"))


def _principal_axes(rows: Tensor) -> Tensor:
    """Return the eigenvectors of the covariance of centered rows [N, r], as columns [r, r]."""
    axes: Tensor = torch.linalg.eigh(rows.T @ rows).eigenvectors
    return axes
