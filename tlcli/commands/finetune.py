"""finetune: labeled images in, a run directory with a good classifier out."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tlcli
from tlcli import processes
from tlcli.backbones.heads import head_modules
from tlcli.backbones.timm_config import make_timm_config
from tlcli.datasets.dataset import Dataset, open_dataset
from tlcli.datasets.descriptions import describe_dataset
from tlcli.datasets.splits import splits_by_digest
from tlcli.engines.choice import uses_cuda
from tlcli.errors import ArtifactError, DataError, UsageError
from tlcli.progress import Reporter, Silent
from tlcli.reports.run_report import run_report
from tlcli.runs.directory import (
    CHECKPOINTS,
    FILES,
    RUN_FILE,
    check_run_output,
    free_name,
    new_run,
    recover_run,
    unfinished_job,
    unfinished_name,
    unfinished_run,
)
from tlcli.runs.provenance import data_fingerprint, settings_to_json, versions
from tlcli.runs.run import load_run
from tlcli.runs.write import RunContent, write_run
from tlcli.settings import SPLITS, FinetuneSettings
from tlcli.storage.files import check_outside, portable_name
from tlcli.storage.outputs import Target, published
from tlcli.storage.urls import Location, Url, absolute
from tlcli.tracking.tracking import Tracking
from tlcli.training.classifier import Classifier, train_classifier
from tlcli.training.tail.checkpoints import refuse_other

RUN = Target(
    option="--out", last=RUN_FILE, foreign=lambda names: next((name for name in names if name not in FILES), None)
)


def finetune(settings: FinetuneSettings, report: Reporter | None = None) -> dict[str, Any]:
    """Train a classifier on DATA and write the run directory.

    Where torchrun started several processes, they train together, and each returns the same; the first one writes.

    Returns:
        The content of `run.json`, with the run's path under `run`, and `was_finished` where `resume` found nothing to
        do.

    Raises:
        UsageError: settings that contradict each other or DATA.
        DataError: DATA is missing or unusable, or training stopped at a loss that is no number (the run then holds the
            best weights before).
        ArtifactError: weights, cache, checkpoint or run are broken, or the unfinished run has other settings.
        MachineError: no room, no permission, no such device, weights that would need a network, or a
            tracker's library that is not installed.
    """
    report = report or Silent()
    with processes.process_group(cuda=uses_cuda(settings.compute.device)):
        return _finetune(settings, report if processes.rank() == 0 else Silent())


def _finetune(settings: FinetuneSettings, report: Reporter) -> dict[str, Any]:
    started = time.monotonic()
    tracking = processes.only_first(lambda: Tracking(settings.track, report)) or Tracking((), report)
    with tracking, contextlib.ExitStack() as publishing:
        settings, out, dataset = processes.of_first(lambda: _begin(settings, report, publishing))
        if dataset is None:
            if settings.track:
                report.warn(f"{', '.join(settings.track)} was told nothing, since the run was finished before.")
            return {"run": str(settings.out)} | processes.of_first(lambda: _finished(out, settings))
        if processes.size() > 1:
            report.note(f"{processes.size()} processes train together, with a part of every batch each")
        with contextlib.ExitStack() as writing:
            directory = processes.only_first(lambda: writing.enter_context(_new_run(settings, out, report)))
            if directory is not None:
                tracking.start(
                    settings.out or out, settings_to_json(settings), directory / CHECKPOINTS, resume=settings.resume
                )
            classifier = train_classifier(settings, dataset, directory, report, tracking.lines)

            def write() -> dict[str, Any]:
                assert directory is not None  # the first process has one
                return _write(directory, settings, dataset, classifier, report, name=out.name, started=started)

            written = processes.of_first(write)
        tracking.finish(out, written, classifier.lines)
    if classifier.stopped:
        raise DataError(_not_finite(classifier.stopped, settings.out), path=settings.out)
    return {"run": str(settings.out)} | written


def _new_run(settings: FinetuneSettings, out: Path, report: Reporter) -> contextlib.AbstractContextManager[Path]:
    job = processes.launched().job
    return new_run(out, overwrite=settings.overwrite, resume=settings.resume, report=report, job=job)


def _begin(
    settings: FinetuneSettings, report: Reporter, publishing: contextlib.ExitStack
) -> tuple[FinetuneSettings, Path, Dataset | None]:
    """See whether there is something to do.

    Returns:
        The settings, which say where the run goes; where it is written, which is the same unless that is a URL; and the
        images, None where it was finished before.
    """
    settings = _gone_on_with(settings)
    settings = replace(settings, out=settings.out or free_name(settings.data))
    assert settings.out is not None
    check_outside("--out", settings.out, settings.data, "DATA")
    out = publishing.enter_context(
        published(settings.out, RUN, report, overwrite=settings.overwrite, resume=settings.resume)
    )
    if settings.cache.directory is not None:
        check_outside("--cache", settings.cache.directory, settings.data, "DATA")
    if settings.resume:
        recover_run(out)
    begun = unfinished_run(out) if settings.resume else None
    if begun is not None:
        refuse_other(begun / CHECKPOINTS, settings_to_json(settings))
    elif settings.resume and (out / RUN_FILE).exists():
        return settings, out, None
    check_run_output(out, overwrite=settings.overwrite or settings.resume)
    dataset = open_dataset(settings.data, group_by=settings.group_by)
    _check_split(settings, dataset)
    describe_dataset(dataset, report)
    return settings, out, dataset


def _gone_on_with(settings: FinetuneSettings) -> FinetuneSettings:
    """What torchrun means by the same command line once more: go on, also where the user said to replace a run."""
    job, restarts = processes.launched().job, processes.launched().restarts
    out = settings.out or (unfinished_name(settings.data, job) if job or restarts else None)
    if isinstance(out, Url):
        return replace(settings, resume=True, overwrite=False) if restarts else settings
    if out is None or (unfinished_job(out) != job if job else not restarts):
        return settings
    resume = unfinished_run(out) is not None or not settings.overwrite
    return replace(settings, out=out, resume=resume, overwrite=not resume)


def _write(
    directory: Path,
    settings: FinetuneSettings,
    dataset: Dataset,
    classifier: Classifier,
    report: Reporter,
    *,
    name: str,
    started: float,
) -> dict[str, Any]:
    """Write the run; the content of its `run.json`."""
    info = _info(settings, dataset, classifier)
    info["seconds"] = {
        "total": round(time.monotonic() - started, 3),
        "features": round(classifier.feature_seconds, 3),
        "training": round(classifier.training_seconds, 3),
    }
    images = classifier.images
    content = RunContent(
        weights=classifier.frozen.network.backbone.model.state_dict(),
        config=make_timm_config(classifier.frozen.network.backbone, list(dataset.classes)),
        info=info,
        epochs=classifier.lines,
        predictions=[row for part in (classifier.validation, classifier.test) if part for row in part.rows],
        splits=splits_by_digest(images.splits, images.extraction.digests),
        report=run_report(info, classifier, settings, name=name, report=report),
        onnx=classifier.onnx,
    )
    return write_run(directory, content)


def _check_split(settings: FinetuneSettings, dataset: Dataset) -> None:
    if not dataset.has_split("validation"):
        return
    for flag, given in (
        ("--validation-fraction", settings.validation_fraction is not None),
        ("--group-by", settings.group_by is not None),
    ):
        if given:
            raise UsageError(f"{flag} has no effect: {settings.data} brings its own validation images. Leave it out.")


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
    if stopped := (info.get("training") or {}).get("stopped"):
        raise DataError(_not_finite(stopped, settings.out), path=settings.out)
    return {"was_finished": True} | info


def _info(settings: FinetuneSettings, dataset: Dataset, classifier: Classifier) -> dict[str, Any]:
    """What `run.json` says, besides seconds and checksums."""
    frozen, images = classifier.frozen, classifier.images
    network, cut, extraction = frozen.network, frozen.cut, images.extraction
    failed = [(dataset.samples[index].path, reason) for index, reason in sorted(extraction.failures.items())]
    failed += images.lost.items()
    return {
        "tlcli": tlcli.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": settings_to_json(settings),
        "backbone": network.backbone.name,
        "weights": network.backbone.origin,
        "freeze": {"layer": cut.layer, "name": cut.name, "of": cut.of},
        "classes": list(dataset.classes),
        "preprocessing": network.preprocessing.to_json(),
        "device": str(network.device),
        "precision": network.precision,
        "engine": network.engine,
        "processes": processes.size(),
        "cache": frozen.plain.fingerprint,
        "feature_shape": list(cut.feature_shape),
        "head": {
            "parameters": sum(p.numel() for p in head_modules(network.backbone.model)[0].parameters()),
            "l2": classifier.l2,
        },
        "training": classifier.training,
        "temperature": classifier.temperature,
        "log_prior": None if classifier.log_prior is None else classifier.log_prior.tolist(),
        "images": {
            **{split: len(images.readable(split)) for split in SPLITS},
            "skipped": sum(dataset.skipped.values()),
            "failed": len(failed),
            "computed": extraction.computed,
            "reused": extraction.reused,
        },
        "data": {
            "root": portable_name(absolute(dataset.root)),
            "fingerprint": data_fingerprint(extraction.digests),
            "skipped": dataset.skipped,
            "failed": [{"path": portable_name(path), "error": reason} for path, reason in failed],
            "duplicates": images.duplicates.to_json(),
        },
        "validation": classifier.validation.metrics,
        "test": classifier.test.metrics if classifier.test else None,
        "versions": versions(),
    }


def _not_finite(where: str, out: Location | None) -> str:
    return (
        f"the loss was no longer a finite number at {where}. {out} holds the best weights before that. Try a smaller "
        "--learning-rate, or --precision fp32."
    )
