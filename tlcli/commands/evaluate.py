"""`tlcli evaluate`: measure the accuracy of a run on labeled images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tlcli.datasets.dataset import Dataset, Sample, open_dataset
from tlcli.datasets.descriptions import describe_reading
from tlcli.errors import DataError, first_reasons
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.inference.metrics import Metrics
from tlcli.inference.predictor import Predictor
from tlcli.inference.rows import is_unknown
from tlcli.progress import Reporter, Silent
from tlcli.runs.run import Run, load_run
from tlcli.settings import DEFAULT_UNKNOWN_RATE, SPLITS, EvaluateSettings
from tlcli.storage.files import portable_name


def evaluate(settings: EvaluateSettings, report: Reporter | None = None) -> dict[str, Any]:
    """Evaluate a run on a split of DATA.

    If the settings name no split, it is test if DATA has one; validation if DATA is the run's own training data and a
    part of it was held out; otherwise all images, with a warning if the run was trained on any of them.

    Returns:
        Metrics (see `Metrics.result`), `run`, `classes`, `split`, `images`, `failed`, `failures` and `seconds`.

    Raises:
        DataError: DATA is unusable, has classes that the run lacks, or lacks the split.
        ArtifactError: The run is damaged.
        MachineError: The device is missing, or memory ran out.
    """
    report = report or Silent()
    started = time.monotonic()
    run = load_run(settings.run)
    dataset = open_dataset(settings.data, classes=run.classes, filters=settings.filters, columns=settings.columns)
    describe_reading(dataset, report)
    split, samples = _choose_split(run, dataset, settings, report)
    compute = settings.compute
    predictor = Predictor(
        run,
        device=compute.device,
        engine=compute.engine,
        batch_size=compute.batch_size,
        workers=compute.workers,
        report=report,
    )
    metrics = Metrics(run.classes)
    failures: list[dict[str, str]] = []
    run_splits, trained_on, unknown = run.splits(), 0, 0
    with report.task("Evaluate", len(samples)) as advance:
        predictions = predictor.stream(sample.path for sample in samples)
        for sample, prediction in zip(samples, predictions, strict=True):
            if prediction.probabilities is None:
                failures.append({"path": portable_name(sample.path), "error": prediction.error or ""})
            else:
                metrics.update(prediction.probabilities[None], np.array([sample.label]), np.array([prediction.label]))
                unknown += is_unknown(prediction.novelty, DEFAULT_UNKNOWN_RATE)
                trained_on += run_splits.get(prediction.digest or b"") == "train"
            advance(1)
    if len(failures) == len(samples):
        raise _unusable(settings, failures)
    if trained_on and split in {"validation", "test"}:
        report.warn(
            f"the run was trained on {trained_on:,} of these {len(samples):,} {split} images, so the metrics are too "
            "optimistic."
        )
    return {
        "run": str(settings.run),
        "split": split,
        "classes": list(run.classes),
        **metrics.result(),
        "unknown": {"images": unknown, "rate": DEFAULT_UNKNOWN_RATE} if run.has_novelty else None,
        "failed": len(failures),
        "failures": failures,
        "seconds": round(time.monotonic() - started, 3),
    }


def _unusable(settings: EvaluateSettings, failures: Sequence[dict[str, str]]) -> DataError:
    reasons = first_reasons((failure["path"], failure["error"]) for failure in failures)
    return DataError(
        f"none of the {len(failures):,} images of {settings.data} can be used: {reasons}", path=settings.data
    )


def _choose_split(
    run: Run, dataset: Dataset, settings: EvaluateSettings, report: Reporter
) -> tuple[str, Sequence[Sample]]:
    """Return the split to evaluate on, and its samples."""
    split = settings.split
    if split in {None, "test"} and dataset.has_split("test"):
        return "test", _samples_of(dataset, "test")
    if split in SPLITS and dataset.has_split(split):
        return split, _samples_of(dataset, split)
    run_splits = _splits_in_run(run, dataset, settings, report)
    is_own_data = all(run_split is not None for run_split in run_splits)
    if split is None and is_own_data and "validation" in run_splits:
        split = "validation"
    if split in SPLITS:
        pairs = zip(dataset.samples, run_splits, strict=True)
        samples = [sample for sample, run_split in pairs if run_split == split]
        if is_own_data and samples:
            return split, samples
        reason = "" if is_own_data else ", and some of its images are not from the run's training data"
        raise DataError(
            f"{dataset.root} has no {split} images{reason}. Use --split all, or pass data with a folder named {split}.",
            path=dataset.root,
        )
    if trained_on := run_splits.count("train"):
        report.warn(
            f"the run was trained on {trained_on:,} of these {len(run_splits):,} images, so the metrics are too "
            "optimistic. For metrics on held-out images, see validation in run.json."
        )
    return "all", dataset.samples


def _samples_of(dataset: Dataset, split: str) -> list[Sample]:
    return [sample for sample in dataset.samples if sample.split == split]


def _splits_in_run(run: Run, dataset: Dataset, settings: EvaluateSettings, report: Reporter) -> list[str | None]:
    """Look up each sample in the run by its digest: its split, `failed` if it cannot be read, or None if unknown."""
    splits = run.splits()
    found: list[str | None] = []
    with (
        ImageLoader(DecodeOptions(), workers=settings.compute.worker_count()) as loader,
        report.task("Compare", len(dataset.samples)) as advance,
    ):
        for image in loader.load(sample.path for sample in dataset.samples):
            found.append("failed" if image.digest is None else splits.get(image.digest))
            advance(1)
    return found
