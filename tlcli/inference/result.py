"""The result of predicting many images. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tlcli.inference.rows import RowCounts


@dataclass(kw_only=True)
class PredictResult(RowCounts):
    """The result of predict."""

    out: str | None
    """Where the rows were written; None if they are in `rows`."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Files that are not images, by reason."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The rows by column name, if `out` is None."""
    unlisted: list[str] = field(default_factory=list)
    """Folders that could not be listed, and why."""
    explained: dict[str, Any] | None = None
    """Where the explanations are, how many there are, and how many of the first images have none; None without
    `--explain`."""
    shard: str | None = None
    """Which part of the images was predicted, as `I/N`; None for all."""
    was_finished: bool = False
    """With `resume`: there was nothing left to do."""
    decisions: dict[str, Any] = field(default_factory=dict)
    """What `--target-precision` and `--sets` promise; see `Decisions.metrics`."""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        return {
            "out": self.out,
            "images": self.images,
            "failed": self.failed,
            "review": self.review,
            "unknown": self.unknown,
            "precision": self.decisions.get("precision"),
            "sets": self.decisions.get("sets"),
            "labels": dict(self.labels.most_common()),
            "skipped": self.skipped,
            "unlisted": self.unlisted,
            "explained": self.explained,
            "shard": self.shard,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images / self.seconds, 1) if self.seconds else None,
        } | ({"rows": self.rows} if self.out is None else {})
