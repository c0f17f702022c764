"""Collect the contents of a run's report.html: select its images, and draw their overview."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tlcli.inference.predictor import ranked
from tlcli.progress import Reporter
from tlcli.reports.decisions import report_decisions
from tlcli.reports.overview import Overview, cached_overview, draw_overview
from tlcli.reports.run_page import TOP_CLASSES, EvaluatedSplit, ReportGallery, ReportImage, run_page
from tlcli.runs.held_out_predictions import predictions_of_rows
from tlcli.storage.files import portable_name
from tlcli.storage.urls import absolute
from tlcli.training.classifier import Classifier, Evaluation

MAX_IMAGES = 4000
"""Images with a thumbnail, at most; atypical ones are added."""
ATYPICAL = 16
"""Known images that are least typical, which are shown."""


def run_report(
    info: dict[str, Any], classifier: Classifier, *, name: str, command: str, workers: int, report: Reporter
) -> str:
    """Render the report of a finished training.

    Args:
        info: The content of `run.json`, except checksums.
        classifier: The trained classifier, with its evaluations.
        name: The run's name, for the title.
        command: The command line that repeats the run.
        workers: Number of decoder processes for the thumbnails.
        report: Receives the progress of the thumbnails.
    """
    evaluations = [("Test", classifier.test)] if classifier.test else []
    evaluations.append(("Validation", classifier.validation))
    novelty, classes = classifier.novelty, classifier.images.dataset.classes
    novelties = (
        {} if novelty is None else dict(zip(novelty.rows, novelty.novelty.of_scores(novelty.scores), strict=True))
    )
    atypical = sorted(novelties, key=lambda row: -novelties[row])[:ATYPICAL]
    selected = select_images([evaluation for _, evaluation in evaluations], needed=atypical)
    root = portable_name(f"{absolute(classifier.images.dataset.root)}{os.sep}")
    return run_page(
        info,
        name=name,
        splits=[EvaluatedSplit(name=split, metrics=evaluation.metrics) for split, evaluation in evaluations],
        gallery=ReportGallery(
            images=[
                _report_image(split, evaluations[split][1], row, classifier, root, novelties) for split, row in selected
            ],
            overview=_overview(classifier, [(evaluations[split][1], row) for split, row in selected], workers, report),
            mapped_vectors="the features before the head" if classifier.training is None else "the logits",
        ),
        decisions=report_decisions(
            predictions_of_rows(classifier.validation.rows, classes),
            predictions_of_rows(classifier.test.rows, classes) if classifier.test else None,
            classes,
            novelty,
        ),
        lines=classifier.lines,
        command=command,
    )


def select_images(
    evaluations: list[Evaluation], limit: int = MAX_IMAGES, needed: Collection[int] = ()
) -> list[tuple[int, int]]:
    """Select the images to show.

    If there are more than `limit`, take the most confident errors (up to half), the least confident correct
    predictions (an eighth), an even sample of the other correct ones, and `needed`, in addition.

    Args:
        evaluations: The evaluations of the splits; validation is the last.
        limit: Number of images.
        needed: Validation images to show in any case, as rows of `UsableImages`.

    Returns:
        Up to `limit` pairs of split and row, in order.
    """
    pairs = [(split, row) for split, evaluation in enumerate(evaluations) for row in range(len(evaluation.rows))]
    if len(pairs) <= limit:
        return pairs
    last = len(evaluations) - 1
    confidence = np.concatenate([[row["confidence"] for row in evaluation.rows] for evaluation in evaluations])
    right = np.concatenate(
        [[row["label"] == row["predicted"] for row in evaluation.rows] for evaluation in evaluations]
    )
    order = np.argsort(np.where(right, confidence, -confidence), kind="stable")
    errors, correct = order[~right[order]][: limit // 2], order[right[order]]
    unsure = correct[: limit // 8]
    rest = correct[limit // 8 :]
    remaining = limit - len(errors) - len(unsure)
    sample = rest[np.linspace(0, len(rest) - 1, min(remaining, len(rest))).astype(np.int64)]
    also = [
        index for index, (split, row) in enumerate(pairs) if split == last and evaluations[split].images[row] in needed
    ]
    return [pairs[index] for index in sorted({*errors.tolist(), *unsure.tolist(), *sample.tolist(), *also})]


def _report_image(
    split: int, evaluation: Evaluation, row: int, classifier: Classifier, root: str, novelties: Mapping[int, float]
) -> ReportImage:
    sample = classifier.images.splits.samples[evaluation.images[row]]
    probabilities = evaluation.rows[row]["probabilities"]
    top = ranked(int(evaluation.logits[row].argmax()), np.array(probabilities))[:TOP_CLASSES]
    return ReportImage(
        split=split,
        truth=sample.label,
        predicted=top[0],
        path=portable_name(absolute(sample.path)).removeprefix(root),
        top=[(label, probabilities[label]) for label in top],
        novelty=novelties.get(evaluation.images[row]) if evaluation is classifier.validation else None,
    )


def _overview(
    classifier: Classifier, selected: list[tuple[Evaluation, int]], workers: int, report: Reporter
) -> Overview:
    """Return thumbnails and map: from the feature cache if only the head was trained, otherwise drawn anew."""
    images = classifier.images
    positions = [evaluation.images[row] for evaluation, row in selected]
    digests = images.digests(positions)
    store, intensity = classifier.extractor.plain, classifier.extractor.network.preprocessing.intensity

    def vectors() -> npt.NDArray[np.float32]:
        if classifier.training is None:
            found: npt.NDArray[np.float32] = store.gather(digests).reshape(len(digests), -1)
            return found
        logits: npt.NDArray[np.float32] = np.nan_to_num(
            np.stack([evaluation.logits[row] for evaluation, row in selected])
        )
        return logits

    def draw() -> Overview:
        return draw_overview(
            images.paths(positions),
            vectors,
            intensity=intensity,
            workers=workers,
            report=report,
        )

    if classifier.training is None and store.directory is not None:
        return cached_overview(store.directory, digests, intensity, draw, report)
    return draw()
