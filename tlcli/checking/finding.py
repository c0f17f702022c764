"""A finding: one thing about a data set that somebody should look at; and how findings are written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tlcli.datasets.dataset import Dataset
from tlcli.inference.journal import write_csv
from tlcli.progress import Reporter
from tlcli.storage.files import portable_name
from tlcli.storage.folders import exclusive_write

UNREADABLE, LEAK, CONFLICT, SUSPECT = "unreadable", "leak", "conflict", "suspect"
DUPLICATE, NEAR_DUPLICATE, TINY, SMALL_CLASS, IMBALANCE = (
    "duplicate",
    "near-duplicate",
    "tiny",
    "small-class",
    "imbalance",
)
KINDS = (UNREADABLE, LEAK, CONFLICT, SUSPECT, DUPLICATE, NEAR_DUPLICATE, TINY, SMALL_CLASS, IMBALANCE)
"""In the order in which they are reported: what spoils a result most comes first."""

COLUMNS = ("kind", "path", "class", "split", "detail", "other_path", "other_class", "score")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row of the report."""

    kind: str
    """One of `KINDS`."""
    label: str
    """The image's class, or the class that is meant."""
    detail: str
    """What is wrong, in words."""
    path: str = ""
    """The image, as `portable_name` writes it; empty where a whole class is meant."""
    split: str | None = None
    other_path: str = ""
    """The image it is a copy of."""
    other_label: str | None = None
    """The other image's class, or the one that this image looks like."""
    score: float | None = None
    """Of copies, how much they resemble each other (1 is byte for byte); of suspects, how sure it is: in [0, 1]."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object: the columns of the CSV file."""
        values = asdict(self)
        values["score"] = None if self.score is None else round(self.score, 4)
        names = {"class": "label", "other_class": "other_label"}
        return {column: values[names.get(column, column)] for column in COLUMNS}


def of_sample(dataset: Dataset, index: int, *, kind: str, detail: str, score: float | None = None) -> Finding:
    """A finding about one image alone."""
    sample = dataset.samples[index]
    return Finding(
        kind=kind,
        path=portable_name(sample.path),
        label=dataset.classes[sample.label],
        split=sample.split,
        detail=detail,
        score=score,
    )


def of_pair(dataset: Dataset, index: int, other: int, *, kind: str, detail: str, score: float | None) -> Finding:
    """A finding about an image and another that it is a copy of."""
    sample, partner = dataset.samples[index], dataset.samples[other]
    return Finding(
        kind=kind,
        path=portable_name(sample.path),
        label=dataset.classes[sample.label],
        split=sample.split,
        detail=detail,
        other_path=portable_name(partner.path),
        other_label=dataset.classes[partner.label],
        score=score,
    )


def write_findings(out: Path, findings: Sequence[Finding], report: Reporter) -> None:
    """Write a CSV file with one row for each finding; it appears whole or not at all."""
    rows = [list(finding.to_json().values()) for finding in findings]
    with exclusive_write(out, report) as file:
        text = io.TextIOWrapper(file, "utf8", errors="backslashreplace", newline="")
        write_csv(text, COLUMNS, rows, header=True)
        text.detach()
