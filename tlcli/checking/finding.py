"""Define findings, the problems that `check` reports about a dataset, and write them to CSV."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tlcli.datasets.dataset import Dataset
from tlcli.inference.row_files import write_csv
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
MASK, MIXED_LEVELS, SIMILAR_NAMES, PROFILE = "mask", "mixed-levels", "similar-names", "profile"
KINDS = (
    UNREADABLE,
    LEAK,
    CONFLICT,
    MASK,
    SUSPECT,
    DUPLICATE,
    NEAR_DUPLICATE,
    TINY,
    MIXED_LEVELS,
    SIMILAR_NAMES,
    PROFILE,
    SMALL_CLASS,
    IMBALANCE,
)
"""All kinds of findings, in the order in which they are reported: the most harmful first."""

FINDING_COLUMNS = ("kind", "path", "class", "split", "detail", "other_path", "other_class", "score")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A problem with an image, a pair of images, or a class."""

    kind: str
    """One of `KINDS`."""
    label: str
    """The image's class, or the class that the finding is about."""
    detail: str
    """Description of the problem."""
    path: str = ""
    """The image, as written by `portable_name`; empty if the finding is about a class."""
    split: str | None = None
    other_path: str = ""
    """The image that it is a copy of; empty if there is none."""
    other_label: str | None = None
    """The class of the other image, or the predicted class of a suspect."""
    score: float | None = None
    """Similarity of copies (1 if identical), or margin of suspects; in [0, 1]."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object whose keys are the columns of the CSV file."""
        values = asdict(self)
        values["score"] = None if self.score is None else round(self.score, 4)
        names = {"class": "label", "other_class": "other_label"}
        return {column: values[names.get(column, column)] for column in FINDING_COLUMNS}


def sample_finding(dataset: Dataset, index: int, *, kind: str, detail: str, score: float | None = None) -> Finding:
    """Create a finding about a single image."""
    sample = dataset.samples[index]
    return Finding(
        kind=kind,
        path=portable_name(sample.path),
        label=dataset.classes[sample.label],
        split=sample.split,
        detail=detail,
        score=score,
    )


def pair_finding(dataset: Dataset, index: int, other: int, *, kind: str, detail: str, score: float | None) -> Finding:
    """Create a finding about an image and the other image that it is a copy of."""
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
    """Write findings to a CSV file, one row each; the file appears complete or not at all."""
    rows = [list(finding.to_json().values()) for finding in findings]
    with exclusive_write(out, report) as file:
        text = io.TextIOWrapper(file, "utf8", errors="backslashreplace", newline="")
        write_csv(text, FINDING_COLUMNS, rows, header=True)
        text.detach()
