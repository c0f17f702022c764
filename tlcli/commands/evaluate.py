"""`tlcli evaluate`: measure the accuracy of a run on labeled images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.datasets.class_names import in_reading_order
from tlcli.datasets.dataset import Dataset, Sample, open_dataset
from tlcli.datasets.descriptions import describe_reading
from tlcli.datasets.tables.suffixes import is_table
from tlcli.errors import DataError, UsageError, first_reasons
from tlcli.features.file_digests import DigestReader
from tlcli.images.measurements import measure_images
from tlcli.inference.metrics import Metrics
from tlcli.inference.predictor import Prediction, Predictor
from tlcli.inference.rows import is_unknown
from tlcli.inference.slices import NO_SLICE, EvaluatedImage, quarters, slice_metrics
from tlcli.progress import Reporter, Silent
from tlcli.reports.slices_page import slices_page
from tlcli.runs.run import Run, load_run
from tlcli.settings import DEFAULT_UNKNOWN_RATE, MEASURES, SPLITS, EvaluateSettings
from tlcli.storage.files import check_new_file, check_outside, portable_name
from tlcli.storage.outputs import Target, check_writable, published_if
from tlcli.storage.publish import atomic_write


def evaluate(settings: EvaluateSettings, report: Reporter | None = None) -> dict[str, Any]:
    """Evaluate a run on a split of DATA, and on slices of it.

    If the settings name no split, it is test if DATA has one; validation if DATA is the run's own training data and a
    part of it was held out; otherwise all images, with a warning if the run was trained on any of them.

    Returns:
        Metrics (see `Metrics.result`), `run`, `classes`, `split`, `images`, `failed`, `failures` and `seconds`; `by`,
        `measure`, and `slices` (see `slice_metrics`), which are None without slices; and `out`.

    Raises:
        UsageError: `by` is not a column, a regular expression that matches, or a quantity; or the output exists.
        DataError: DATA is unusable, has classes that the run lacks, or lacks the split.
        ArtifactError: The run is damaged.
        MachineError: The device is missing, or memory ran out.
    """
    report = report or Silent()
    with published_if(settings.out, Target(option="--out"), report, overwrite=settings.overwrite) as out:
        started = time.monotonic()
        if out is not None:
            _check_output(settings, out)
        run = load_run(settings.run)
        digests = DigestReader(None, workers=settings.compute.worker_count(), report=report)
        dataset = _open_data(settings, run, digests)
        describe_reading(dataset, report)
        split, samples = _choose_split(run, dataset, settings.split, digests, report)
        result, evaluated = _evaluate(settings, run, split, samples, report)
        result["corrections"] = dataset.corrections.to_json() if dataset.corrections else None
        names: list[str] = []
        if settings.by is not None:
            names, result["slices"] = _slices(settings.by, settings, run, evaluated, report)
        if out is not None:
            page = slices_page(
                result,
                _errors_of_worse(result["slices"], names, [image for _, image in evaluated]),
                intensity=run.preprocessing.intensity,
                workers=settings.compute.worker_count(),
                report=report,
            )
            with atomic_write(out) as file:
                file.write(page.encode("utf8", "backslashreplace"))
    return result | {"seconds": round(time.monotonic() - started, 3)}


def _check_output(settings: EvaluateSettings, out: Path) -> None:
    """Check that the page can be written, and is not inside what the command reads."""
    for folder, what in ((settings.run, "the run"), (settings.data, "DATA")):
        if settings.out is not None:
            check_outside("--out", settings.out, folder, what)
    check_new_file("--out", out, replace=settings.overwrite)
    check_writable(out)


def _open_data(settings: EvaluateSettings, run: Run, digests: DigestReader) -> Dataset:
    """List the images of DATA; the group of an image is its slice, if slices are made by a column or the paths."""
    by, columns = settings.by, settings.columns
    group_by = None
    if by is not None and by not in MEASURES:
        if "(" in by:
            group_by = by
        elif is_table(settings.data):
            columns = replace(columns, group_column=by)
        else:
            raise UsageError(
                f"--by {by}: {settings.data} is not a table, so it has no columns. Expected {', '.join(MEASURES)}, or "
                r"a regular expression with a capture group, such as '/(\w+)_\d+'."
            )
    try:
        return open_dataset(
            settings.data,
            classes=run.classes,
            filters=settings.filters,
            columns=columns,
            group_by=group_by,
            corrections=digests.corrections(settings.corrections),
        )
    except UsageError as error:
        if by is None:
            raise
        # The group is what the user knows as --by.
        message = error.message.replace("--group-by", "--by").replace("--group-column", "--by")
        raise UsageError(message) from error


def _evaluate(
    settings: EvaluateSettings, run: Run, split: str, samples: Sequence[Sample], report: Reporter
) -> tuple[dict[str, Any], list[tuple[Sample, EvaluatedImage]]]:
    """Predict the samples; return the metrics, and the images that could be read."""
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
    evaluated: list[tuple[Sample, EvaluatedImage]] = []
    run_splits, trained_on, unknown = run.splits(), 0, 0
    with report.task("Evaluate", len(samples)) as advance:
        predictions = predictor.stream(sample.path for sample in samples)
        for sample, prediction in zip(samples, predictions, strict=True):
            if prediction.probabilities is None or prediction.label is None:
                failures.append({"path": portable_name(sample.path), "error": prediction.error or ""})
            else:
                metrics.update(prediction.probabilities[None], np.array([sample.label]), np.array([prediction.label]))
                unknown += is_unknown(prediction.novelty, DEFAULT_UNKNOWN_RATE)
                trained_on += run_splits.get(prediction.digest or b"") == "train"
                if settings.by is not None:
                    evaluated.append((sample, _evaluated_image(sample, prediction, run.classes)))
            advance(1)
    if len(failures) == len(samples):
        raise _unusable(settings, failures)
    if trained_on and split in {"validation", "test"}:
        report.warn(
            f"the run was trained on {trained_on:,} of these {len(samples):,} {split} images, so the metrics are too "
            "optimistic."
        )
    result = {
        "run": str(settings.run),
        "split": split,
        "classes": list(run.classes),
        **metrics.result(),
        "unknown": {"images": unknown, "rate": DEFAULT_UNKNOWN_RATE} if run.has_novelty else None,
        "by": settings.by,
        "measure": MEASURES.get(settings.by or ""),
        "slices": None,
        "out": None if settings.out is None else str(settings.out),
        "failed": len(failures),
        "failures": failures,
    }
    return result, evaluated


def _evaluated_image(sample: Sample, prediction: Prediction, classes: Sequence[str]) -> EvaluatedImage:
    assert prediction.label is not None
    assert prediction.probabilities is not None
    return EvaluatedImage(
        path=sample.path,
        label=classes[sample.label],
        predicted=classes[prediction.label],
        confidence=float(prediction.probabilities[prediction.label]),
    )


def _slices(
    by: str,
    settings: EvaluateSettings,
    run: Run,
    evaluated: Sequence[tuple[Sample, EvaluatedImage]],
    report: Reporter,
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the slice of each image, and the metrics of the slices."""
    correct = np.array([image.correct for _, image in evaluated])
    if by not in MEASURES:
        names = [NO_SLICE if sample.group is None else sample.group for sample, _ in evaluated]
        return names, slice_metrics(names, correct, in_reading_order(dict.fromkeys(sorted(names))))
    with report.task("Measure", len(evaluated)) as advance:
        values = measure_images(
            by,
            (image.path for _, image in evaluated),
            preprocessing=run.preprocessing,
            workers=settings.compute.worker_count(),
            advance=advance,
        )
    names = quarters(values)
    return names, slice_metrics(names, correct, [names[row] for row in np.argsort(values, kind="stable")])


def _errors_of_worse(
    slices: Sequence[dict[str, Any]], names: Sequence[str], images: Sequence[EvaluatedImage]
) -> dict[str, list[EvaluatedImage]]:
    """Return the incorrectly predicted images of each slice that is marked as worse."""
    pairs = list(zip(names, images, strict=True))
    return {
        row["name"]: [image for name, image in pairs if name == row["name"] and not image.correct]
        for row in slices
        if row["worse"]
    }


def _unusable(settings: EvaluateSettings, failures: Sequence[dict[str, str]]) -> DataError:
    reasons = first_reasons((failure["path"], failure["error"]) for failure in failures)
    return DataError(
        f"none of the {len(failures):,} images of {settings.data} can be used: {reasons}", path=settings.data
    )


def _choose_split(
    run: Run, dataset: Dataset, split: str | None, digests: DigestReader, report: Reporter
) -> tuple[str, Sequence[Sample]]:
    """Return the split to evaluate on, and its samples.

    Args:
        run: The run.
        dataset: DATA.
        split: The split that was asked for, if any.
        digests: Tells which images the run was trained on.
        report: Receives warnings.
    """
    if split in {None, "test"} and dataset.has_split("test"):
        return "test", _samples_of(dataset, "test")
    if split in SPLITS and dataset.has_split(split):
        return split, _samples_of(dataset, split)
    run_splits = _splits_in_run(run, dataset, digests)
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


def _splits_in_run(run: Run, dataset: Dataset, digests: DigestReader) -> list[str | None]:
    """Look up each sample in the run by its digest: its split, `failed` if it cannot be read, or None if unknown."""
    splits = run.splits()
    found = digests.read([sample.path for sample in dataset.samples], "Compare")
    return ["failed" if digest is None else splits.get(digest) for digest in found]
