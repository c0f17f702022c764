"""The rows of similar: the nearest images of each query. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from tlcli.inference.row_files import PredictionRow
from tlcli.storage.files import portable_name

NEIGHBOR_COLUMNS = ("query", "rank", "path", "similarity", "label", "status", "error")


@dataclass(frozen=True, kw_only=True)
class Neighbor:
    """An image that is near to a query."""

    path: str
    similarity: float
    """Cosine of the features of both images, in [-1, 1]."""
    label: str | None
    """Name of its class; None if the images are not labeled."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A query and its nearest images."""

    path: str
    neighbors: tuple[Neighbor, ...] = ()
    """The nearest first."""
    error: str | None = None
    """Why the query cannot be read; None if it can."""

    def rows(self) -> list[PredictionRow]:
        """Return a row for each neighbor, or one for a query that cannot be read: values of `NEIGHBOR_COLUMNS`."""
        query = portable_name(self.path)
        if self.error is not None:
            return [[query, None, None, None, None, "failed", self.error]]
        return [
            [query, rank, portable_name(found.path), round(found.similarity, 6), found.label, "ok", None]
            for rank, found in enumerate(self.neighbors, 1)
        ]
