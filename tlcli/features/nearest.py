"""Find the images whose features are nearest to a query's by their cosine: exactly, and in bounded memory.

A first pass compares 8-bit codes of all features, a quarter of their size. It bounds every cosine from both sides,
because the distance of each code from its feature is known. Only images whose upper bound reaches the k-th largest
lower bound can be among the nearest. Their cosines are then computed in float64 from the features. The result is that
of brute force, with ties in the order of the images.

benchmarks/similar.py measures it, and benchmarks/RESULTS.md compares it with libraries.

Shapes: N images, D features, Q queries, n images of a block, k neighbors.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tlcli.errors import READ_ONLY_ERRNOS
from tlcli.progress import Advance

Rows = npt.NDArray[np.int64]
ReadRows = Callable[[Rows], npt.NDArray[np.float32]]
"""Reads the features of images int64 [n]: float32 [n, D]."""

LEVELS = 127
"""The largest code of a value."""
ENCODED, SCANNED, COMPARED = 4096, 2**17, 512
"""Images at a time: encoded, in the first pass, and compared exactly."""
QUERIES = 16
"""Queries of one pass: with two codes each, they take hardly longer than one."""
IN_MEMORY = 2**28
"""Bytes of codes above which they are in a temporary file instead of in memory."""
SLACK = 1e-5
"""Added to every bound, for rounding in float32."""


class Neighbors(NamedTuple):
    """The nearest images of a query, the nearest first."""

    images: Rows
    """[k]"""
    cosines: npt.NDArray[np.float64]
    """[k]"""


NO_NEIGHBORS = Neighbors(np.empty(0, np.int64), np.empty(0, np.float64))


class NearestImages:
    """An index of the features of N images.

    Args:
        read: Reads features; those of neighboring indices together.
        count: Number of images N.
        release: Called when what was read is no longer needed.
        folder: Where the codes of many images are kept, in a file without a name; None for the system's folder of
            temporary files.
        advance: Called with the number of images that were added to the index.
    """

    def __init__(
        self,
        read: ReadRows,
        count: int,
        *,
        release: Callable[[], None] = lambda: None,
        folder: Path | None = None,
        advance: Advance = lambda _: None,
    ) -> None:
        self._read, self._release, self._count = read, release, count
        self._scales = torch.empty(count)
        self._errors = torch.empty(count)
        self._codes = _Codes(count, _flat(read(np.arange(min(count, 1)))).shape[1], folder)
        for start in range(0, count, ENCODED):
            rows = np.arange(start, min(start + ENCODED, count))
            codes, scales, errors = _encode(torch.from_numpy(_flat(read(rows))))
            self._codes.append(codes)
            self._scales[start : start + len(rows)], self._errors[start : start + len(rows)] = scales, errors
            release()
            advance(len(rows))
        self._codes.finish()

    def search(self, queries: npt.NDArray[np.float32], most: int) -> list[Neighbors]:
        """Return the `most` nearest images of each query, or all N if there are fewer.

        Args:
            queries: float32 [Q, ...], the features of the queries.
            most: Number of neighbors k, at least 1.
        """
        queries, most = _flat(queries), min(most, self._count)
        if not most:
            return [NO_NEIGHBORS] * len(queries)
        found = []
        for start in range(0, len(queries), QUERIES):
            some = queries[start : start + QUERIES]
            candidates = self._candidates(torch.from_numpy(some), most)
            found += [self._compare(query, *rows, most) for query, rows in zip(some, candidates, strict=True)]
        return found

    def _candidates(self, queries: Tensor, most: int) -> list[tuple[Rows, npt.NDArray[np.float32]]]:
        """Return the images that may be among the nearest of each query, with the upper bounds of their cosines."""
        codes, scales, errors = _encode_finely(queries)
        least = torch.full((len(queries), most), -torch.inf)  # [Q, k], the largest lower bounds so far
        hits = []
        for start in range(0, self._count, SCANNED):
            block = slice(start, min(start + SCANNED, self._count))
            with self._codes.rows(block) as rows:
                products = torch._int_mm(rows, codes.T).float()
            cosines = (products.view(-1, len(queries), 2) * scales).sum(dim=2).T * self._scales[block]  # [Q, n]
            bounds = self._errors[block] * (1 + errors[:, None]) + errors[:, None] + SLACK
            lower = (cosines - bounds).topk(min(most, len(rows)), dim=1).values
            least = torch.cat([least, lower], dim=1).topk(most, dim=1).values
            upper = cosines + bounds
            query, row = (upper >= least[:, -1:]).nonzero(as_tuple=True)
            hits.append((query, start + row, upper[query, row]))
        query, row, upper = (torch.cat(parts) for parts in zip(*hits, strict=True))
        chosen = [(query == number) & (upper >= least[number, -1:]) for number in range(len(queries))]
        return [(row[mask].long().numpy(), upper[mask].numpy()) for mask in chosen]

    def _compare(
        self, query: npt.NDArray[np.float32], rows: Rows, upper: npt.NDArray[np.float32], most: int
    ) -> Neighbors:
        """Return the nearest of some images by exact cosines; those with larger upper bounds are compared first."""
        best = NO_NEIGHBORS
        order = np.argsort(-upper, kind="stable")
        for start in range(0, len(order), COMPARED):
            chunk = order[start : start + COMPARED]
            if len(best.images) == most and upper[chunk[0]] < best.cosines[-1]:
                break
            images = np.sort(rows[chunk])
            cosines = exact_cosines(_flat(self._read(images)), query)
            images, cosines = np.concatenate([best.images, images]), np.concatenate([best.cosines, cosines])
            nearest = np.lexsort((images, -cosines))[:most]
            best = Neighbors(images[nearest], cosines[nearest])
        self._release()
        return best


class _Codes:
    """Codes of N images, int8 [N, D]: in memory or, if there are many, in a temporary file that is mapped."""

    def __init__(self, count: int, width: int, folder: Path | None) -> None:
        self._width, self._filled = width, 0
        self._map: mmap.mmap | None = None
        self._file: IO[bytes] | None = None
        if count * width > IN_MEMORY:
            self._file = _open_unnamed(folder)
        self._array = torch.empty((count if self._file is None else 0, width), dtype=torch.int8)

    def append(self, codes: Tensor) -> None:
        """Append the codes of the next images."""
        if self._file is None:
            self._array[self._filled : self._filled + len(codes)] = codes
        else:
            self._file.write(codes.numpy().data)
        self._filled += len(codes)

    def finish(self) -> None:
        """Map the file, once all codes are in it."""
        if self._file is not None:
            self._file.flush()
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
            self._file.close()
            self._array = torch.frombuffer(self._map, dtype=torch.int8).view(-1, self._width)

    @contextlib.contextmanager
    def rows(self, block: slice) -> Iterator[Tensor]:
        """Yield the codes of a block, int8 [n, D], and then release its memory."""
        yield self._array[block]
        if self._map is not None:
            start = block.start * self._width // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, start, block.stop * self._width - start)


def _open_unnamed(folder: Path | None) -> IO[bytes]:
    """Open a temporary file without a name in a folder or, if that is read-only, in the system's folder for them."""
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        if error.errno not in READ_ONLY_ERRNOS:
            raise
        return tempfile.TemporaryFile()


def exact_cosines(features: npt.NDArray[np.float32], query: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the cosines of features [n, D] and a query [D], float64 [n]; 0 for a feature of zeros.

    They are rounded to 12 decimals, so that rounding errors do not order images with the same cosine.
    """
    rows, other = features.astype(np.float64), query.astype(np.float64)
    lengths = np.sqrt((rows * rows).sum(axis=1) * (other * other).sum())
    cosines: npt.NDArray[np.float64] = (rows * other).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    return cosines.round(12)


def _flat(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return features [n, ...] as [n, D], with D at least 2: `torch._int_mm` gives wrong products of one column."""
    rows = features.reshape(len(features), math.prod(features.shape[1:]))
    return rows if rows.shape[1] > 1 else np.pad(rows, ((0, 0), (0, 1)))


def _encode(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Encode features [n, D] of any length as scaled codes of vectors of length 1.

    Returns:
        The codes, int8 [n, D], their scales, float32 [n], and the distance of scaled codes and vectors, float32 [n].
    """
    largest = features.abs().amax(dim=1, keepdim=True)
    values = features / torch.where(largest > 0, largest, 1)
    lengths = values.norm(dim=1).clamp_min(1)  # only that of zeros is less
    levels = (values * LEVELS).round_()
    errors = values.sub_(levels, alpha=1 / LEVELS).norm(dim=1) / lengths
    return levels.to(torch.int8), 1 / (LEVELS * lengths), errors


def _encode_finely(queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Encode queries [Q, D] as sums of two scaled codes: of the vector of length 1, and of what the first code leaves.

    Returns:
        The codes, int8 [2 * Q, D], two after each other, their scales, float32 [Q, 2], and the distances, float32 [Q].
    """
    largest = queries.abs().amax(dim=1, keepdim=True)
    units = torch.nn.functional.normalize(queries / torch.where(largest > 0, largest, 1), dim=1)
    codes, scales, _ = _encode(units)
    rest = units - codes * scales[:, None]
    finer, factors, errors = _encode(rest)
    length = rest.norm(dim=1)
    return (
        torch.stack([codes, finer], dim=1).flatten(0, 1),
        torch.stack([scales, factors * length], dim=1),
        errors * length,
    )
