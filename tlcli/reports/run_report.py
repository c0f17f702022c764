"""What a run's page is made of: which images it shows, and what their map is drawn from."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from tlcli.inference.predictor import ranked
from tlcli.progress import Reporter
from tlcli.reports.overview import Overview, draw_overview, kept_overview
from tlcli.reports.page import LIKELIEST, Part, Shown, run_page
from tlcli.settings import FinetuneSettings
from tlcli.settings.command_line import finetune_command
from tlcli.storage.files import portable_name
from tlcli.storage.urls import absolute
from tlcli.training.classifier import Classifier, Evaluation

MOST = 4000
"""Images with a thumbnail."""

METHODS = {"holdout": "held out", "5-fold": "five folds: each image by a head that was not trained on it"}
"""How validation images were judged."""


def run_report(
    info: dict[str, Any], classifier: Classifier, settings: FinetuneSettings, *, name: str, report: Reporter
) -> str:
    """The page for a finished training.

    Args:
        info: The content of `run.json`, checksums aside.
        classifier: What was trained.
        settings: Of the run.
        name: The run's name.
        report: Shown the progress.
    """
    judged = [("Test", classifier.test)] if classifier.test else []
    judged.append(("Validation", classifier.validation))
    chosen = choose([evaluation for _, evaluation in judged])
    root = portable_name(f"{absolute(classifier.images.dataset.root)}{os.sep}")
    return run_page(
        info,
        name=name,
        parts=[Part(name=title, title=_title(title, part), metrics=part.metrics) for title, part in judged],
        images=[_shown(part, judged[part][1], row, classifier, root) for part, row in chosen],
        overview=_overview(classifier, [(judged[part][1], row) for part, row in chosen], settings, report),
        lines=classifier.lines,
        mapped="the features before the head" if classifier.training is None else "the logits",
        command=finetune_command(settings),
    )


def choose(judged: list[Evaluation], most: int = MOST) -> list[tuple[int, int]]:
    """The images to show, as part and row: all, or the surest mistakes, the least sure hits, and some of the rest.

    Returns:
        At most `most`, in order.
    """
    everyone = [(part, row) for part, evaluation in enumerate(judged) for row in range(len(evaluation.rows))]
    if len(everyone) <= most:
        return everyone
    confidence = np.concatenate([[row["confidence"] for row in evaluation.rows] for evaluation in judged])
    right = np.concatenate([[row["label"] == row["predicted"] for row in evaluation.rows] for evaluation in judged])
    order = np.argsort(np.where(right, confidence, -confidence), kind="stable")
    wrong, hits = order[~right[order]][: most // 2], order[right[order]]
    unsure = hits[: most // 8]
    rest = hits[most // 8 :]
    left = most - len(wrong) - len(unsure)
    even = rest[np.linspace(0, len(rest) - 1, min(left, len(rest))).astype(np.int64)]
    return [everyone[index] for index in sorted({*wrong.tolist(), *unsure.tolist(), *even.tolist()})]


def _title(name: str, part: Evaluation) -> str:
    method = part.metrics.get("method")
    return name if method is None else f"{name}, {METHODS[method]}"


def _shown(part: int, evaluation: Evaluation, row: int, classifier: Classifier, root: str) -> Shown:
    sample = classifier.images.split.samples[evaluation.images[row]]
    shares = evaluation.rows[row]["probabilities"]
    likeliest = ranked(int(evaluation.logits[row].argmax()), np.array(shares))[:LIKELIEST]
    return Shown(
        part=part,
        truth=sample.label,
        said=likeliest[0],
        path=portable_name(absolute(sample.path)).removeprefix(root),
        likeliest=[(label, shares[label]) for label in likeliest],
    )


def _overview(
    classifier: Classifier, chosen: list[tuple[Evaluation, int]], settings: FinetuneSettings, report: Reporter
) -> Overview:
    """Thumbnails and map: kept beside the features that they are of; with layers that were trained, drawn anew."""
    images = classifier.images
    positions = [evaluation.images[row] for evaluation, row in chosen]
    digests = images.digests(positions)
    store, intensity = classifier.extractor.plain, classifier.extractor.network.preprocessing.intensity

    def vectors() -> npt.NDArray[np.float32]:
        if classifier.training is None:
            found: npt.NDArray[np.float32] = store.gather(digests).reshape(len(digests), -1)
            return found
        logits: npt.NDArray[np.float32] = np.nan_to_num(
            np.stack([evaluation.logits[row] for evaluation, row in chosen])
        )
        return logits

    def draw() -> Overview:
        return draw_overview(
            images.paths(positions),
            vectors,
            intensity=intensity,
            workers=settings.compute.worker_count(),
            report=report,
        )

    if classifier.training is None and store.directory is not None:
        return kept_overview(store.directory, digests, intensity, draw, report)
    return draw()
