"""finetune: labelled pictures in, a run directory with a good classifier out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import tlcli
from tlcli.backbones.zoo import set_head, timm_config
from tlcli.errors import ArtifactError, DataError, UsageError
from tlcli.features.extract import Extraction
from tlcli.features.frozen import ENGINE, Frozen, features_of, open_frozen
from tlcli.files import portable_name
from tlcli.images.dataset import Dataset, open_dataset
from tlcli.images.describe import describe_balance, describe_dataset, describe_duplicates, describe_failures
from tlcli.images.findings import Duplicates, find_duplicates
from tlcli.images.split import Settled, folds, settle, splits_by_digest, unit_keys
from tlcli.progress import Reporter, Silent
from tlcli.provenance import data_fingerprint, settings_to_json, versions
from tlcli.reports.page import run_page
from tlcli.runs import RUN_FILE, check_out, free_name, load_run, new_run, write_run
from tlcli.settings import SPLITS, FinetuneSettings
from tlcli.training.calibration import probabilities
from tlcli.training.metrics import Metrics
from tlcli.training.selection import L2S, Selection, select_folds, select_holdout


def finetune(settings: FinetuneSettings, report: Reporter | None = None) -> dict[str, Any]:
    """Train a classifier on DATA and write the run directory.

    Returns:
        The content of `run.json`, with the run's path under `run`, and `was_finished` where `resume` found nothing to
        do.

    Raises:
        UsageError: settings that contradict each other or DATA.
        DataError: DATA is missing or unusable.
        ArtifactError: weights, cache or run are broken.
        MachineError: no room, no permission, no such device, or weights that would need a network.
    """
    report = report or Silent()
    started = time.monotonic()
    out = settings.out or free_name(settings.data)
    if settings.resume and (out / RUN_FILE).exists():
        return _finished(out, settings)
    # An unfinished run is gone on with by way of the cache: its few files are written anew.
    replace = settings.overwrite or settings.resume
    check_out(out, overwrite=replace)
    dataset = open_dataset(settings.data, group_by=settings.group_by)
    if settings.validation_fraction is not None and dataset.has_split("validation"):
        raise UsageError(
            f"--validation-fraction has no effect: {settings.data} brings its own validation pictures. Leave it out."
        )
    if settings.group_by is not None and dataset.has_split("validation"):
        raise UsageError(f"--group-by has no effect: {settings.data} brings its own validation pictures. Leave it out.")
    describe_dataset(dataset, report)
    with new_run(out, overwrite=replace) as directory:
        trained = _train(settings, dataset, report)
        info = _info(settings, dataset, trained)
        info["seconds"] = {
            "total": round(time.monotonic() - started, 3),
            "features": round(trained.feature_seconds, 3),
            "training": round(trained.training_seconds, 3),
        }
        written = write_run(
            directory,
            weights=trained.frozen.backbone.model.state_dict(),
            config=timm_config(trained.frozen.backbone, list(dataset.classes)),
            info=info,
            epochs=trained.selection.sweep,
            predictions=[row for part in (trained.validation, trained.test) if part for row in part.rows],
            splits=splits_by_digest(trained.settled, trained.extraction.digests),
            report=run_page(info, name=out.name),
        )
    return {"run": str(out)} | written


def _finished(out: Path, settings: FinetuneSettings) -> dict[str, Any]:
    """What the finished run at `out` says, if it was made with the same settings."""
    info = load_run(out).info
    asked, made = settings_to_json(settings), info["settings"]
    changed = [
        f"{name} was {made.get(name)!r} and is {asked[name]!r}" for name in asked if asked[name] != made.get(name)
    ]
    if changed:
        raise ArtifactError(
            f"{out} is finished, but with other settings: {'; '.join(changed)}. Choose another --out, or replace it "
            "with --overwrite.",
            path=out,
        )
    return {"run": str(out), "was_finished": True} | info


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How the classifier did on some pictures."""

    metrics: dict[str, Any]
    rows: list[dict[str, Any]]
    """Rows of `predictions.parquet`."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """All that training found out."""

    frozen: Frozen
    extraction: Extraction
    duplicates: Duplicates
    settled: Settled
    selection: Selection
    validation: Judged
    test: Judged | None
    feature_seconds: float
    training_seconds: float


def _train(settings: FinetuneSettings, dataset: Dataset, report: Reporter) -> Trained:
    """Features of every picture, splits, the head, and how good it is."""
    frozen = open_frozen(
        settings.network, settings.compute, settings.cache, classes=len(dataset.classes), report=report
    )
    paths = [sample.path for sample in dataset.samples]
    extraction, feature_seconds = features_of(
        frozen, paths, settings.compute, verify=settings.cache.verify, report=report
    )
    duplicates = find_duplicates(dataset.samples, extraction.digests)
    describe_duplicates(duplicates, report)
    describe_failures(dataset, extraction.failures, report)
    settled = settle(
        dataset,
        extraction.digests,
        extraction.failures,
        fraction=settings.validation_fraction,
        seed=settings.network.seed,
    )
    describe_balance(dataset, settled, report, balanced=settings.balance)
    started = time.monotonic()
    features = torch.from_numpy(frozen.store.gather(settled.digests))
    selection = _fit_head(
        features, settled, classes=len(dataset.classes), device=frozen.head_device(), settings=settings, report=report
    )
    for tried in selection.sweep:
        report.detail("  " + ", ".join(f"{name} {value:.4g}" for name, value in tried.items()))
    set_head(frozen.backbone.model, selection.head.weight, selection.head.bias)
    judged_split = "train" if settled.folded else "validation"
    validation = _judge(dataset, settled, settled.indices(judged_split), selection.logits, selection)
    validation.metrics["method"] = selection.method
    test = None
    if rows := settled.indices("test"):
        logits = selection.head.logits(features[rows]).numpy()
        test = _judge(dataset, settled, rows, logits, selection)
    return Trained(
        frozen=frozen,
        extraction=extraction,
        duplicates=duplicates,
        settled=settled,
        selection=selection,
        validation=validation,
        test=test,
        feature_seconds=feature_seconds,
        training_seconds=time.monotonic() - started,
    )


def _fit_head(
    features: torch.Tensor, settled: Settled, *, classes: int, device: str, settings: FinetuneSettings, report: Reporter
) -> Selection:
    """Fit the softmax head on features [N, D]; L2 and temperature from validation, or from five folds."""
    labels = torch.tensor([sample.label for sample in settled.samples])
    train, validation = settled.indices("train"), settled.indices("validation")
    with report.task("Head", len(L2S), "fits") as advance:
        if not settled.folded:
            return select_holdout(
                features[train],
                labels[train],
                features[validation],
                labels[validation],
                classes=classes,
                balance=settings.balance,
                device=device,
                progress=advance,
            )
        keys = unit_keys([settled.samples[index] for index in train], [settled.digests[index] for index in train])
        if len(set(keys)) < 2:
            raise DataError(
                f"all pictures of {settings.data} are in one group, so none can judge the others. Use another "
                "--group-by."
            )
        return select_folds(
            features[train],
            labels[train],
            np.array(folds(keys, seed=settings.network.seed)),
            classes=classes,
            balance=settings.balance,
            device=device,
            progress=advance,
        )


def _judge(
    dataset: Dataset, settled: Settled, rows: Sequence[int], logits: npt.NDArray[np.float32], selection: Selection
) -> Judged:
    """Metrics and predictions of the samples `rows`, from their logits [len(rows), k]."""
    samples = [settled.samples[index] for index in rows]
    found = probabilities(logits, selection.temperature, selection.log_prior)
    said = logits.argmax(axis=1)
    metrics = Metrics(dataset.classes)
    metrics.update(found, np.array([sample.label for sample in samples]), said)
    predictions = [
        {
            "path": portable_name(sample.path),
            "label": dataset.classes[sample.label],
            "split": "test" if sample.split == "test" else "validation",
            "predicted": dataset.classes[label],
            "confidence": float(row[label]),
            "probabilities": row.tolist(),
        }
        for sample, label, row in zip(samples, said.tolist(), found, strict=True)
    ]
    return Judged(metrics=metrics.result(), rows=predictions)


def _info(settings: FinetuneSettings, dataset: Dataset, trained: Trained) -> dict[str, Any]:
    """What `run.json` says, besides seconds and checksums."""
    frozen, settled, extraction = trained.frozen, trained.settled, trained.extraction
    cut = frozen.cut
    return {
        "tlcli": tlcli.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": settings_to_json(settings),
        "backbone": frozen.backbone.name,
        "weights": frozen.backbone.origin,
        "freeze": {"layer": cut.layer, "name": cut.name, "of": cut.of},
        "classes": list(dataset.classes),
        "preprocessing": frozen.preprocessing.to_json(),
        "device": str(frozen.device),
        "precision": frozen.precision,
        "engine": ENGINE,
        "cache": frozen.store.fingerprint,
        "feature_shape": list(cut.feature_shape),
        "head": {"parameters": (cut.feature_shape[0] + 1) * len(dataset.classes), "l2": trained.selection.l2},
        "temperature": trained.selection.temperature,
        "log_prior": None if trained.selection.log_prior is None else trained.selection.log_prior.tolist(),
        "images": {
            **{split: len(settled.indices(split)) for split in SPLITS},
            "skipped": sum(dataset.skipped.values()),
            "failed": len(extraction.failures),
            "computed": extraction.computed,
            "reused": extraction.reused,
        },
        "data": {
            "root": portable_name(str(dataset.root.absolute())),
            "fingerprint": data_fingerprint(extraction.digests),
            "skipped": dataset.skipped,
            "failed": [
                {"path": portable_name(dataset.samples[index].path), "error": reason}
                for index, reason in sorted(extraction.failures.items())
            ],
            "duplicates": trained.duplicates.to_json(),
        },
        "validation": trained.validation.metrics,
        "test": trained.test.metrics if trained.test else None,
        "versions": versions(),
    }
