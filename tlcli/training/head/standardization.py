"""Scaled features in rotated coordinates, in which the head's optimizer works.

Features in memory are rotated once. Features on disk are never copied, but streamed for every product.

Shapes: N images, D features, k classes, r <= D coordinates after rotation. Everything is class-major, [k, N] and
[k, r + 1]: with few classes, these products are about three times as fast on a CPU as their transposes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tlcli.training.head.statistics import axes_of, scale_of
from tlcli.training.head.threads import map_fits

BLOCK = 4096
"""Rows read at a time."""
SAMPLE = 32_768
"""Rows from which the rotation and the covariance of streamed features are computed."""


class Rows(Protocol):
    """Features that are read as they are needed, for example from disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N and D."""

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Read rows `start` to `stop`: float32 [stop - start, D]."""


@dataclass(frozen=True, kw_only=True)
class StandardizedRows:
    """Some rows, centered, scaled by their own statistics, rotated, with a last column of ones."""

    members: Tensor | None
    """bool [N], the rows that take part in products, before rows of zeros up to the largest set; None for all, some of
    which may have weight 0."""
    variances: Tensor
    """float32 [r + 1], approximate mean squares of the columns."""
    within: Tensor
    """float32 [r + 1], variance within classes of each coordinate, relative to the average of all features; 0 for the
    ones."""
    mean: Tensor
    """float64 [D], on the CPU."""
    scale: Tensor
    """float64 [D], on the CPU; infinite for a constant feature, so that its weight is 0."""
    rotation: Tensor
    """float32 [D, r] with orthonormal columns; fewer if these rows have fewer coordinates than those of another set."""

    def fold_back(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Convert coefficients [k, r + 1] to weights [k, D] and bias [k] on raw features: float32, on the CPU."""
        weight = (coefficients[:, : self.rotation.shape[1]] @ self.rotation.T).cpu().double() / self.scale
        bias = coefficients[:, -1].cpu().double() - weight @ self.mean
        return weight.float(), bias.float()

    def unfold(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Convert weights float32 [k, D] and bias [k] on raw features to coefficients: float32 [k, r + 1]."""
        rotated = (weight * self.scale).nan_to_num(0.0).float().to(self.rotation.device) @ self.rotation
        coefficients = rotated.new_zeros(len(bias), len(self.variances))
        coefficients[:, : rotated.shape[1]] = rotated
        coefficients[:, -1] = bias + weight.double() @ self.mean
        return coefficients


class FeatureMatrix(Protocol):
    """Features, scaled for each of the sets of rows that a head is fitted on."""

    @property
    def designs(self) -> Sequence[StandardizedRows]:
        """One for each set of rows, in order."""

    @property
    def height(self) -> int:
        """Number of rows N of the largest set."""

    def products(self, numbers: Sequence[int], coefficients: Tensor) -> Tensor:
        """Multiply coefficients [F, k, r + 1] by the sets of rows with the given numbers: [F, k, N]."""

    def pullbacks(self, numbers: Sequence[int], residuals: Tensor) -> Tensor:
        """Multiply residuals [F, k, N] by the transposed sets of rows with the given numbers: [F, k, r + 1]."""

    def parts(self, numbers: Sequence[int], masks: Sequence[Tensor]) -> MatrixInMemory:
        """Return some rows, bool [N], of each of the sets with the given numbers, in the coordinates of the sets."""


class MatrixInMemory:
    """Features in memory, with a rotated copy [N, r + 1] for each set of rows; N and r are the same for all."""

    def __init__(self, sets: Sequence[tuple[StandardizedRows, Tensor]]) -> None:
        self.designs = [design for design, _ in sets]
        self._rows = [rows for _, rows in sets]
        self.height = len(self._rows[0])

    @classmethod
    def of(
        cls, features: Tensor, labels: Tensor, masks: Sequence[Tensor], device: str, at_a_time: int = 1
    ) -> MatrixInMemory:
        """Scale and rotate sets of rows.

        Args:
            features: float32 [N, D], N >= 1.
            labels: int64 [N].
            masks: bool [N] for each set of rows.
            device: The device that holds the matrix.
            at_a_time: How many sets of rows to rotate at a time.

        Raises:
            DataError: a feature is NaN or infinite.
        """
        shape = max(int(mask.sum()) for mask in masks), features.shape[1]
        return cls(map_fits(lambda mask: _rotated(features, labels, mask, shape, device), masks, at_a_time))

    @classmethod
    def of_parts(cls, parts: Sequence[tuple[StandardizedRows, Tensor, Tensor]]) -> MatrixInMemory:
        """Collect parts of sets: for each, the design of its set, its members bool [N], and its rows [n, r + 1]."""
        designs = [replace(design, members=own, variances=rows.square().mean(dim=0)) for design, own, rows in parts]
        padded = torch.nn.utils.rnn.pad_sequence([rows for _, _, rows in parts], batch_first=True)
        return cls(list(zip(designs, padded, strict=True)))

    def products(self, numbers: Sequence[int], coefficients: Tensor) -> Tensor:
        """Multiply coefficients [F, k, r + 1] by the sets of rows with the given numbers: [F, k, N]."""
        made = coefficients.new_empty(*coefficients.shape[:2], self.height)
        for into, number, some in zip(made, numbers, coefficients, strict=True):
            torch.mm(some, self._rows[number].T, out=into)
        return made

    def pullbacks(self, numbers: Sequence[int], residuals: Tensor) -> Tensor:
        """Multiply residuals [F, k, N] by the transposed sets of rows with the given numbers: [F, k, r + 1]."""
        made = residuals.new_empty(*residuals.shape[:2], self._rows[0].shape[1])
        for into, number, some in zip(made, numbers, residuals, strict=True):
            torch.mm(some, self._rows[number], out=into)
        return made

    def parts(self, numbers: Sequence[int], masks: Sequence[Tensor]) -> MatrixInMemory:
        """Return some rows, bool [N], of each of the sets with the given numbers, in the coordinates of the sets."""
        found = []
        for number, mask in zip(numbers, masks, strict=True):
            design, rows = self.designs[number], self._rows[number]
            found.append((design, mask, rows[torch.nonzero(mask[design.members])[:, 0].to(rows.device)]))
        return self.of_parts(found)


def _rotated(
    features: Tensor, labels: Tensor, members: Tensor, shape: tuple[int, int], device: str
) -> tuple[StandardizedRows, Tensor]:
    """Scale and rotate the rows of `members`, and fill them up with zeros.

    Args:
        features: float32 [N, D].
        labels: int64 [N].
        members: bool [N].
        shape: Number of rows and of features of the largest set; there are as many coordinates as the smaller one.
        device: Where to compute.
    """
    if not members.all():
        features, labels = features[members], labels[members]
    mean = features.mean(dim=0, dtype=torch.float64).float()
    centered = features - mean
    norms = torch.linalg.vector_norm(centered, dim=0, dtype=torch.float64)
    scale = scale_of(mean, norms.div_(math.sqrt(len(features))), len(features))
    scaled = centered.div_(scale.float()).to(device)
    if features.shape[0] < features.shape[1]:
        basis, triangle = torch.linalg.qr(scaled.T)
        axes, variances, within = axes_of(triangle.T, labels, features.shape[1])
        rotation, rotated = basis @ axes, triangle.T @ axes
    else:
        axes, variances, within = axes_of(scaled, labels, features.shape[1])
        rotation, rotated = axes, scaled @ axes
    count, rank = rotated.shape
    rows = rotated.new_zeros(shape[0], min(shape) + 1)
    rows[:count, :rank] = rotated
    rows[:count, -1] = 1
    lacking = min(shape) - rank
    design = StandardizedRows(
        members=members,
        variances=torch.cat([variances[:-1], variances.new_zeros(lacking), variances[-1:]]),
        within=torch.cat([within[:-1], within.new_ones(lacking), within[-1:]]),
        mean=mean.double(),
        scale=scale,
        rotation=rotation,
    )
    return design, rows


class StreamedMatrix:
    """Features that are read block by block for every product, in one pass for all requests made together.

    They are scaled by the statistics of all rows. The difference to those of a set of rows is a gain and
    an offset, which are applied to the coefficients.

    Args:
        rows: float32 [N, D].
        labels: int64 [N].
        masks: bool [N] for each set of rows.
        device: The device that computes with the rows.

    Raises:
        DataError: a feature is NaN or infinite.
    """

    def __init__(self, rows: Rows, labels: Tensor, masks: Sequence[Tensor], device: str) -> None:
        self._rows, self._device, self.height = rows, device, rows.shape[0]
        means, scales = self._means_and_scales(masks)
        self._mean, self._scale = means.pop().float(), scales.pop().float()
        self._gains = [(self._scale.double() / scale).nan_to_num(0.0).float().to(device) for scale in scales]
        self._offsets = [
            ((self._mean.double() - mean) / scale).float().to(device) for mean, scale in zip(means, scales, strict=True)
        ]
        step = max(1, rows.shape[0] // SAMPLE)
        sampled = torch.zeros(rows.shape[0], dtype=torch.bool)
        for start in range(0, rows.shape[0], BLOCK):
            sampled[start : start + BLOCK : step] = True
        # A view would keep its block in memory.
        sample = torch.cat([block[sampled[at].to(device)].clone() for at, block in self._blocks()])
        self.designs = []
        for mask, mean, scale, gain, offset in zip(masks, means, scales, self._gains, self._offsets, strict=True):
            own = sample[mask[sampled].to(device)].mul_(gain).add_(offset)
            axes, variances, within = axes_of(own, labels[sampled & mask], rows.shape[1])
            self.designs.append(
                StandardizedRows(
                    members=None, variances=variances, within=within, mean=mean, scale=scale, rotation=axes
                )
            )

    def products(self, numbers: Sequence[int], coefficients: Tensor) -> Tensor:
        """Multiply coefficients [F, k, r + 1] by the sets of rows with the given numbers: [F, k, N]; in one pass."""
        slopes = [some[:, :-1] @ self.designs[n].rotation.T for n, some in zip(numbers, coefficients, strict=True)]
        weights = [slope * self._gains[number] for number, slope in zip(numbers, slopes, strict=True)]
        shifts = [
            some[:, -1] + slope @ self._offsets[number]
            for number, some, slope in zip(numbers, coefficients, slopes, strict=True)
        ]
        made = coefficients.new_empty(*coefficients.shape[:2], self.height)
        for at, block in self._blocks():
            for into, weight, shift in zip(made, weights, shifts, strict=True):
                torch.addmm(shift[:, None], weight, block.T, out=into[:, at])
        return made

    def pullbacks(self, numbers: Sequence[int], residuals: Tensor) -> Tensor:
        """Multiply residuals [F, k, N] by the transposed sets of rows: [F, k, r + 1]; in one pass."""
        pulled = residuals.new_zeros(*residuals.shape[:2], self._rows.shape[1], dtype=torch.float64)
        for at, block in self._blocks():
            for into, some in zip(pulled, residuals, strict=True):
                into.add_(some[:, at] @ block)
        totals = residuals.sum(dim=2, keepdim=True)
        slopes = [
            slope.float() * self._gains[number] + total * self._offsets[number]
            for number, slope, total in zip(numbers, pulled, totals, strict=True)
        ]
        rotated = [slope @ self.designs[number].rotation for number, slope in zip(numbers, slopes, strict=True)]
        return torch.cat([torch.stack(rotated), totals], dim=2)

    def parts(self, numbers: Sequence[int], masks: Sequence[Tensor]) -> MatrixInMemory:
        """Return some rows, bool [N], of each of the sets with the given numbers, in the coordinates of the sets."""
        wanted = torch.stack(list(masks)).any(dim=0)
        rows = torch.cat([block[wanted[at].to(self._device)].clone() for at, block in self._blocks()])
        found = []
        for number, mask in zip(numbers, masks, strict=True):
            own = rows[mask[wanted].to(self._device)].mul_(self._gains[number]).add_(self._offsets[number])
            own = torch.nn.functional.pad(own @ self.designs[number].rotation, (0, 1), value=1.0)
            found.append((self.designs[number], mask, own))
        return MatrixInMemory.of_parts(found)

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield the positions of some rows, and the scaled rows float32 [n, D]."""
        for at, block in read_blocks(self._rows):
            yield at, block.sub_(self._mean).div_(self._scale).to(self._device)

    def _means_and_scales(self, masks: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return means and scales, float64 [D], of each set of rows, then of all rows."""
        members = torch.stack([*masks, torch.ones_like(masks[0])]).double()
        sums, squares = torch.zeros(2, len(members), self._rows.shape[1], dtype=torch.float64)
        for at, block in read_blocks(self._rows):
            values = block.double()
            sums += members[:, at] @ values
            squares += members[:, at] @ values.square_()
        counts = members.sum(dim=1, keepdim=True)
        means = sums / counts
        stds = (squares / counts - means.square()).clamp_min(0).sqrt()
        return list(means), [scale_of(*each) for each in zip(means, stds, map(int, counts), strict=True)]


def read_blocks(rows: Rows) -> Iterator[tuple[slice, Tensor]]:
    """Yield the positions of some rows, and writable copies float32 [n, D]."""
    for start in range(0, rows.shape[0], BLOCK):
        at = slice(start, min(start + BLOCK, rows.shape[0]))
        yield at, torch.from_numpy(rows.read(at.start, at.stop))
