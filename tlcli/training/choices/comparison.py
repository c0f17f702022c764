"""Compare candidates by paired out-of-fold losses of the exact head, and describe what was tried.

Shapes: N images of the subset.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tlcli import processes
from tlcli.features.extractor import FeatureExtractor
from tlcli.features.stored_rows import StoredRows
from tlcli.progress import Reporter
from tlcli.training.choices.subset import Subset
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.head.folds import fold_weightings
from tlcli.training.head.l2_selection import select_folds
from tlcli.training.head.sweep import held_out_losses
from tlcli.training.paired_gain import Gain, paired_gain
from tlcli.training.usable_images import require_unchanged

CLEAR = 2.0
"""A candidate replaces the one before it if its loss is lower by more than so many standard errors."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Out-of-fold results of a candidate."""

    losses: npt.NDArray[np.float64]
    """[N], in nats, at the best temperature; 0 where no head without the image knows its class."""
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A row of the table of candidates."""

    value: str
    accuracy: float
    loss: float
    than: str | None = None
    """The candidate that it is compared with; None for the first."""
    gain: Gain | None = None
    """How much lower its loss is than that of `than`."""
    seconds: float
    chosen: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        gain = {"gain": self.gain.mean, "gain_error": self.gain.error} if self.gain else {"gain": None}
        return {name: value for name, value in asdict(self).items() if name != "gain"} | gain

    def line(self, width: int) -> str:
        """Return one line of the table; values are padded to `width`."""
        than = ""
        if self.gain is not None:
            lower = "lower" if self.gain.mean > 0 else "higher"
            than = f"{lower} by {abs(self.gain.mean):.3f} ± {self.gain.error:.3f} than {self.than}"
        return (
            f"          {self.value:<{width}}  {100 * self.accuracy:5.1f} %  loss {self.loss:.3f}  {than:<36}"
            f"{self.seconds:5.1f} s{'  chosen' if self.chosen else ''}"
        )


@dataclass(kw_only=True)
class Comparison:
    """Candidates, each compared with the best of those before it."""

    name: str
    """Title of the table: `Fit`."""
    subset: Subset
    tried: list[Tried] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Why candidates were not compared."""
    _losses: npt.NDArray[np.float64] | None = None

    @property
    def chosen(self) -> str:
        """The best candidate so far."""
        return next(row.value for row in self.tried if row.chosen)

    def challenge(self, value: str, measured: Measured, seconds: float) -> bool:
        """Add a candidate, and choose it if it is clearly better than the one chosen so far. Return whether it is."""
        gain = self.add(value, measured, seconds)
        better = gain is None or gain.exceeds(CLEAR)
        if better:
            self.choose(value, measured)
        return better

    def add(self, value: str, measured: Measured, seconds: float) -> Gain | None:
        """Compare a candidate with the one chosen so far, and return its gain; None for the first."""
        row = Tried(value=value, accuracy=measured.accuracy, loss=float(measured.losses.mean()), seconds=seconds)
        if self._losses is not None:
            row = replace(row, than=self.chosen, gain=paired_gain(self._losses, measured.losses, self.subset.keys))
        self.tried.append(row)
        return row.gain

    def choose(self, value: str, measured: Measured) -> None:
        """Choose a candidate that was added: it is the one that others are compared with from now on."""
        self._losses = measured.losses
        self.tried = [replace(row, chosen=row.value == value) for row in self.tried]

    def to_json(self) -> dict[str, Any]:
        """Return the table as a JSON object."""
        return {
            "images": len(self.subset.samples),
            "folds": self.subset.fold_count,
            "clear": CLEAR,
            "tried": [row.to_json() for row in self.tried],
            "skipped": self.skipped,
        }

    def describe(self, report: Reporter) -> None:
        """Report the table."""
        width = max(len(row.value) for row in self.tried)
        report.note(
            f"{self.name:<9} {self.chosen}, by the loss on {len(self.subset.samples):,} training images, "
            f"{self.subset.fold_count}-fold, of the head on frozen features"
        )
        for row in self.tried:
            report.note(row.line(width))
        for value, reason in self.skipped.items():
            report.note(f"          {value}: {reason}")


def measure(extractor: FeatureExtractor, subset: Subset, weighting: ClassWeighting, *, views: int = 0) -> Measured:
    """Fit the head on a candidate's features of all folds but one, and evaluate it on the plain images of that fold.

    Every process gets the same result.

    Args:
        extractor: A network cut before its head.
        subset: The images.
        weighting: The weights of the classes.
        views: Number of augmented views of each image to fit on as well.

    Raises:
        DataError: images changed since the run began.
        MachineError: not enough disk space or memory.
    """
    for wanted in ([0], range(1, views + 1)):
        if wanted:
            require_unchanged(extractor.extract_views(subset.paths, subset.digests, wanted), subset.digests)
    return processes.from_first(lambda: _measure(extractor, subset, weighting, views))


def _measure(extractor: FeatureExtractor, subset: Subset, weighting: ClassWeighting, views: int) -> Measured:
    rows = StoredRows(extractor, subset.digests, views)
    features, labels = torch.from_numpy(rows.read(0, rows.shape[0])), subset.labels
    repeated, folds = torch.from_numpy(np.tile(labels, views + 1)), np.tile(subset.folds, views + 1)
    fitted = select_folds(
        (features, repeated),
        folds,
        classes=subset.classes,
        evaluated=len(labels),
        weighting=weighting,
        device=extractor.network.head_device,
    )
    *_, seen = fold_weightings(repeated, folds, classes=subset.classes, weighting=weighting)
    known = seen[: len(labels)]
    losses = np.zeros(len(labels))
    losses[known] = held_out_losses(fitted.logits[known], labels[known], fitted.log_prior)[1]
    return Measured(losses=losses, accuracy=float((fitted.logits.argmax(axis=1) == labels).mean()))
