"""evaluate: how good a run is on labelled pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.errors import DataError
from tlcli.files import portable_name
from tlcli.images.dataset import Dataset, Sample, open_dataset
from tlcli.images.loader import PictureLoader
from tlcli.images.split import assign_splits
from tlcli.images.worker import Order
from tlcli.inference import Predictor
from tlcli.progress import Reporter, Silent
from tlcli.provenance import data_fingerprint
from tlcli.runs import Run, load_run
from tlcli.settings import EvaluateSettings
from tlcli.training.metrics import Metrics


def evaluate(settings: EvaluateSettings, report: Reporter | None = None) -> dict[str, Any]:
    """Judge a run on a split of DATA.

    Without a split in the settings: test where DATA has one; validation where DATA is what the run was trained on and
    a part of it was held out; else all pictures, with a warning when they were trained on.

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
    dataset = open_dataset(settings.data, group_by=_group_by(run, settings.data), classes=run.classes)
    split, samples = _choose(run, dataset, settings, report)
    predictor = Predictor(run, settings.compute, report)
    metrics = Metrics(run.classes)
    failures: list[dict[str, str]] = []
    with report.task("Evaluate", len(samples)) as advance:
        predictions = predictor.stream(sample.path for sample in samples)
        for sample, prediction in zip(samples, predictions, strict=True):
            if prediction.probabilities is None:
                failures.append({"path": portable_name(sample.path), "error": prediction.error or ""})
            else:
                metrics.update(prediction.probabilities[None], np.array([sample.label]))
            advance(1)
    if len(failures) == len(samples):
        raise DataError(f"none of the {len(samples)} pictures of {settings.data} could be read.", path=settings.data)
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


def _group_by(run: Run, data: Path) -> str | None:
    """The run's own grouping, for its own data; elsewhere groups play no part."""
    same = portable_name(str(data.absolute())) == run.info["settings"]["data"]
    group_by: str | None = run.info["settings"]["group_by"] if same else None
    return group_by


def _choose(run: Run, dataset: Dataset, settings: EvaluateSettings, report: Reporter) -> tuple[str, Sequence[Sample]]:
    """The split to judge on, and its samples."""
    if settings.split == "all":
        return "all", dataset.samples
    if settings.split in {None, "test"} and dataset.has_split("test"):
        return "test", _of(dataset.samples, "test")
    if settings.split is not None and dataset.has_split(settings.split):
        return settings.split, _of(dataset.samples, settings.split)
    own, samples = _own_splits(run, dataset, settings)
    held_out = any(sample.split == "validation" for sample in samples)
    if settings.split is None:
        if own and held_out:
            return "validation", _of(samples, "validation")
        if own:
            report.warn(
                "these pictures were trained on, so the figures flatter. Those of held-out pictures stand in run.json "
                "under validation."
            )
        return "all", dataset.samples
    if own and (chosen := _of(samples, settings.split)):
        return settings.split, chosen
    raise DataError(
        f"{dataset.root} has no {settings.split} pictures"
        + ("" if own else ", and it is not what the run was trained on, whose held-out part could be told again")
        + ". Use --split all, or give a folder with a "
        + settings.split
        + " folder.",
        path=dataset.root,
    )


def _of(samples: Sequence[Sample], split: str) -> list[Sample]:
    return [sample for sample in samples if sample.split == split]


def _own_splits(run: Run, dataset: Dataset, settings: EvaluateSettings) -> tuple[bool, Sequence[Sample]]:
    """Whether DATA is what the run was trained on (by the pictures' bytes), and then its samples split as then."""
    with PictureLoader(Order(), workers=settings.compute.worker_count()) as loader:
        digests = [picture.digest for picture in loader.load(sample.path for sample in dataset.samples)]
    if data_fingerprint(digests) != run.info["data"]["fingerprint"]:
        return False, dataset.samples
    pairs = [(sample, digest) for sample, digest in zip(dataset.samples, digests, strict=True) if digest is not None]
    made = run.info["settings"]
    return True, assign_splits(
        [sample for sample, _ in pairs],
        [digest for _, digest in pairs],
        fraction=made["validation_fraction"],
        seed=made["seed"],
    )
