"""evaluate: how good a run is on labeled images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tlcli.datasets.dataset import Dataset, Sample, open_dataset
from tlcli.errors import DataError
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.inference.metrics import Metrics
from tlcli.inference.predictor import Predictor
from tlcli.progress import Reporter, Silent
from tlcli.runs.run import Run, load_run
from tlcli.settings import SPLITS, EvaluateSettings
from tlcli.storage.files import portable_name


def evaluate(settings: EvaluateSettings, report: Reporter | None = None) -> dict[str, Any]:
    """Judge a run on a split of DATA.

    Without a split in the settings: test where DATA has one; validation where DATA is what the run was trained on and
    a part of it was held out; else all images, with a warning when they were trained on.

    Returns:
        Metrics (see `Metrics.result`), `split`, `images`, `failed`, `failures` and `seconds`.

    Raises:
        DataError: DATA is unusable, has classes that the run lacks, or lacks the split.
        ArtifactError: the run is broken.
        MachineError: no such device, or no memory.
    """
    report = report or Silent()
    started = time.monotonic()
    run = load_run(settings.run)
    dataset = open_dataset(settings.data, classes=run.classes)
    split, samples = _choose(run, dataset, settings, report)
    predictor = Predictor(run, settings.compute, report)
    metrics = Metrics(run.classes)
    failures: list[dict[str, str]] = []
    known, trained = run.splits(), 0
    with report.task("Evaluate", len(samples)) as advance:
        predictions = predictor.stream(sample.path for sample in samples)
        for sample, prediction in zip(samples, predictions, strict=True):
            if prediction.probabilities is None:
                failures.append({"path": portable_name(sample.path), "error": prediction.error or ""})
            else:
                metrics.update(prediction.probabilities[None], np.array([sample.label]), np.array([prediction.label]))
                trained += known.get(prediction.digest or b"") == "train"
            advance(1)
    if len(failures) == len(samples):
        raise DataError(f"none of the {len(samples)} images of {settings.data} could be read.", path=settings.data)
    if trained and split in {"validation", "test"}:
        report.warn(
            f"{trained:,} of these {len(samples):,} images were trained on, though they are called {split}, so the "
            "figures flatter."
        )
    found = metrics.result()
    return {
        "run": str(settings.run),
        "split": split,
        "classes": list(run.classes),
        **found,
        "failed": len(failures),
        "failures": failures,
        "seconds": round(time.monotonic() - started, 3),
    }


def _choose(run: Run, dataset: Dataset, settings: EvaluateSettings, report: Reporter) -> tuple[str, Sequence[Sample]]:
    """The split to judge on, and its samples."""
    if settings.split in {None, "test"} and dataset.has_split("test"):
        return "test", _of(dataset.samples, "test")
    if settings.split in SPLITS and dataset.has_split(settings.split):
        return settings.split, _of(dataset.samples, settings.split)
    known = _splits_in_run(run, dataset, settings, report)
    own = all(split is not None for split in known)
    if settings.split in {None, "validation"} and own and "validation" in known:
        settings = replace(settings, split="validation")
    if settings.split in SPLITS:
        chosen = [sample for sample, split in zip(dataset.samples, known, strict=True) if split == settings.split]
        if own and chosen:
            return settings.split, chosen
        raise DataError(
            f"{dataset.root} has no {settings.split} images"
            + ("" if own else ", and not all of it is what the run was trained on, whose splits are known")
            + f". Use --split all, or give a folder with a {settings.split} folder.",
            path=dataset.root,
        )
    if seen := known.count("train"):
        report.warn(
            f"{seen:,} of these {len(known):,} images were trained on, so the figures flatter. Those of images not "
            "trained on stand in run.json under validation."
        )
    return "all", dataset.samples


def _of(samples: Sequence[Sample], split: str) -> list[Sample]:
    return [sample for sample in samples if sample.split == split]


def _splits_in_run(run: Run, dataset: Dataset, settings: EvaluateSettings, report: Reporter) -> list[str | None]:
    """What each sample was to the run: its split, `failed`, or None for images it never saw. Told by their bytes."""
    splits = run.splits()
    known: list[str | None] = []
    with (
        ImageLoader(DecodeOptions(), workers=settings.compute.worker_count()) as loader,
        report.task("Compare", len(dataset.samples)) as advance,
    ):
        for image in loader.load(sample.path for sample in dataset.samples):
            known.append("failed" if image.digest is None else splits.get(image.digest))
            advance(1)
    return known
