"""Find suspicious labels by comparing them with out-of-fold predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tlcli.checking.confident_learning import checkable, find_suspects
from tlcli.checking.finding import SUSPECT, Finding, sample_finding
from tlcli.datasets.dataset import Dataset
from tlcli.datasets.splits import assign_folds, group_keys
from tlcli.features.extractor import FeatureExtractor
from tlcli.features.stored_rows import IN_MEMORY, StoredRows
from tlcli.inference.calibration import calibrated_probabilities
from tlcli.progress import Reporter
from tlcli.training.head.l2_selection import select_folds
from tlcli.training.head.sweep import L2S

MIN_TRAINING = 4
"""Images of a class that a head must have been trained on before images of that class are checked."""


class RankedLabel(NamedTuple):
    """How plausible the label of an image is."""

    sample: int
    """Index of the sample."""
    suggested: int
    """The most likely class that is not its label."""
    confidence: float
    """The probability of that class, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class LabelCheck:
    """The result of checking labels."""

    findings: tuple[Finding, ...]
    """The suspects, in descending order of score."""
    checked: int
    """Images whose labels were checked."""
    accuracy: float | None
    """Share of them whose label equals the predicted class; None if no label was checked."""
    ranking: tuple[RankedLabel, ...] = ()
    """All images whose labels were checked, the least plausible label first."""


def check_labels(
    extractor: FeatureExtractor,
    dataset: Dataset,
    usable: Sequence[int],
    digests: Sequence[bytes],
    groups: Sequence[Sequence[int]],
    *,
    seed: int,
    report: Reporter,
) -> LabelCheck:
    """Check the label of each usable image, in any split, by cross-validation.

    Args:
        extractor: Its plain store holds the features.
        dataset: The dataset whose labels are checked.
        usable: Indices of N samples.
        digests: Digests of their files.
        groups: Indices of usable samples that go into one fold, such as copies of each other: otherwise, wrong labels
            of copies would confirm each other.
        seed: Seed of the folds.
        report: Receives the progress of the fits.

    Raises:
        DataError: a feature is not finite.
    """
    samples = [dataset.samples[index] for index in usable]
    labels = np.array([sample.label for sample in samples], np.int64)
    rows = StoredRows(extractor, digests, 0)
    place = {index: number for number, index in enumerate(usable)}
    keys = group_keys(samples, digests, [[place[index] for index in group] for group in groups])
    divisions = np.array(assign_folds(keys, labels.tolist(), seed=seed), np.int64)
    classes = len(dataset.classes)
    checked = np.all([checkable(labels, folds, classes=classes, least=MIN_TRAINING) for folds in divisions], axis=0)
    if not checked.any():
        return LabelCheck(findings=(), checked=0, accuracy=None)
    features = torch.from_numpy(rows.read(0, rows.shape[0])) if math.prod(rows.shape) <= IN_MEMORY else rows
    with report.task("Labels", len(L2S), "fits") as advance:
        selection = select_folds(
            (features, torch.from_numpy(labels)),
            divisions,
            classes=classes,
            device=extractor.network.head_device,
            progress=advance,
        )
    scores = calibrated_probabilities(selection.logits, selection.temperature)
    suspects = find_suspects(scores, labels, checked)
    findings = []
    for row, suggested, margin in zip(
        suspects.rows.tolist(), suspects.suggested.tolist(), suspects.margins.tolist(), strict=True
    ):
        detail = f"predicted probability {scores[row, suggested]:.3f}, label probability {scores[row, labels[row]]:.3f}"
        finding = sample_finding(dataset, usable[row], kind=SUSPECT, detail=detail, score=margin)
        findings.append(replace(finding, other_label=dataset.classes[suggested]))
    right = scores.argmax(axis=1) == labels
    return LabelCheck(
        findings=tuple(findings),
        checked=int(checked.sum()),
        accuracy=float(right[checked].mean()),
        ranking=_rank(scores, labels, checked, usable),
    )


def _rank(
    scores: NDArray[np.floating], labels: NDArray[np.int64], checked: NDArray[np.bool_], usable: Sequence[int]
) -> tuple[RankedLabel, ...]:
    """Rank labels by the margin of the most likely other class."""
    rows = np.arange(len(labels))
    others = scores.copy()
    others[rows, labels] = -1
    suggested = others.argmax(axis=1)
    margins = others[rows, suggested] - scores[rows, labels]
    return tuple(
        RankedLabel(usable[row], int(suggested[row]), float(scores[row, suggested[row]]))
        for row in np.argsort(-margins, kind="stable").tolist()
        if checked[row]
    )
