"""Labels that look wrong, by heads that had not seen the images they judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tlcli.checking.confident_learning import judgeable, suspected
from tlcli.checking.copies import Copies
from tlcli.checking.finding import SUSPECT, Finding, of_sample
from tlcli.datasets.dataset import Dataset, Sample
from tlcli.datasets.splits import FOLDS, assign_folds, group_keys
from tlcli.features.extractor import FeatureExtractor
from tlcli.inference.calibration import probabilities
from tlcli.progress import Reporter
from tlcli.training.head.fit import IN_MEMORY, StoredRows
from tlcli.training.head.l2_selection import L2S, select_folds

LEAST_KNOWN = FOLDS - 1
"""Images of a class that a head must have learnt from before its doubts about one more count."""


@dataclass(frozen=True, kw_only=True)
class LabelCheck:
    """What the heads say of the labels."""

    findings: tuple[Finding, ...]
    """The surest first."""
    judged: int
    """Images whose labels were judged."""
    accuracy: float | None
    """Share of these whose label the head would have given; None where none was."""


def check_labels(
    extractor: FeatureExtractor,
    dataset: Dataset,
    usable: Sequence[int],
    digests: Sequence[bytes],
    copies: Copies,
    *,
    seed: int,
    report: Reporter,
) -> LabelCheck:
    """Judge the label of each usable image, of whatever split, by five folds.

    Args:
        extractor: Its plain store has the features.
        dataset: The images.
        usable: N indices of samples.
        digests: Of their files.
        copies: Near duplicates go into one fold: a wrongly labeled pair would vouch for itself.
        seed: Of the folds.
        report: Shown the progress.

    Raises:
        DataError: a feature is not finite.
    """
    samples = [dataset.samples[index] for index in usable]
    keys = _fold_keys(samples, usable, digests, copies)
    parts = np.array(assign_folds(keys, seed=seed), np.int64)
    labels = np.array([sample.label for sample in samples], np.int64)
    classes = len(dataset.classes)
    judged = judgeable(labels, parts, classes=classes, least=LEAST_KNOWN)
    if not judged.any():
        return LabelCheck(findings=(), judged=0, accuracy=None)
    rows = StoredRows(extractor, digests, 0)
    features = torch.from_numpy(rows.read(0, rows.shape[0])) if math.prod(rows.shape) <= IN_MEMORY else rows
    with report.task("Labels", len(L2S), "fits") as advance:
        selection = select_folds(
            (features, torch.from_numpy(labels)),
            parts,
            classes=classes,
            device=extractor.network.head_device,
            progress=advance,
        )
    found = probabilities(selection.logits, selection.temperature)
    suspects = suspected(found, labels, judged)
    findings = []
    for row, suggested, margin in zip(
        suspects.rows.tolist(), suspects.suggested.tolist(), suspects.margins.tolist(), strict=True
    ):
        detail = f"probability {found[row, suggested]:.3f}, of its label {found[row, labels[row]]:.3f}"
        finding = of_sample(dataset, usable[row], kind=SUSPECT, detail=detail, score=margin)
        findings.append(replace(finding, other_label=dataset.classes[suggested]))
    right = found.argmax(axis=1) == labels
    return LabelCheck(findings=tuple(findings), judged=int(judged.sum()), accuracy=float(right[judged].mean()))


def _fold_keys(samples: Sequence[Sample], usable: Sequence[int], digests: Sequence[bytes], copies: Copies) -> list[str]:
    """As `group_keys`, with near duplicates kept together too."""
    keys = group_keys(samples, digests)
    row = {index: number for number, index in enumerate(usable)}
    named = {key: key for key in keys}

    def find(key: str) -> str:
        while named[key] != key:
            key = named[key]
        return key

    for group in copies.groups:
        names = sorted({find(keys[row[index]]) for image in group for index in copies.files[image]})
        named |= dict.fromkeys(names, names[0])
    return [find(key) for key in keys]
