"""`tlcli finetune`: train a classifier on labeled images, and write it to a run directory."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import Any

from tlcli import processes
from tlcli.backbones.config_file import make_timm_config
from tlcli.datasets.dataset import Dataset, open_dataset
from tlcli.datasets.descriptions import describe_dataset
from tlcli.datasets.intensity_measurement import resolve_intensity
from tlcli.datasets.splits import splits_by_digest
from tlcli.engines.choice import uses_cuda
from tlcli.errors import UsageError
from tlcli.features.file_digests import DigestReader
from tlcli.inference.starting_network import open_starting_run
from tlcli.processes import ProcessRank
from tlcli.progress import Reporter, Silent
from tlcli.reports.run_report import run_report
from tlcli.runs.directory import (
    CHECKPOINTS,
    RUN_FILE,
    RUN_OUTPUT,
    check_run_output,
    free_name,
    is_run,
    new_run,
    recover_run,
    unfinished_run,
)
from tlcli.runs.existing_output import OutputIntent, after_restart, finished_info, not_finite
from tlcli.runs.run import Run
from tlcli.runs.write import RunContent, write_run
from tlcli.settings import FinetuneSettings
from tlcli.settings.command_line import finetune_command
from tlcli.settings.grouping import check_split_options, group_pattern
from tlcli.settings.recorded import settings_to_json
from tlcli.storage.files import check_outside
from tlcli.storage.outputs import published
from tlcli.storage.urls import lies_in, parse_location
from tlcli.tracking.tracking import Tracking
from tlcli.training.classifier import Classifier
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.onnx_model import classifier_as_onnx
from tlcli.training.parent import Parent, names_before
from tlcli.training.run_info import run_info
from tlcli.training.tail.checkpoints import refuse_other
from tlcli.training.train import OpenedRun, choose_settings, train_classifier
from tlcli.training.usable_images import held_out_fraction


def finetune(settings: FinetuneSettings, report: Reporter | None = None) -> dict[str, Any]:
    """Train a classifier on DATA, and write the run directory.

    If torchrun started several processes, they train together. Each returns the same; the first one writes.

    Returns:
        The content of `run.json`, with the run's path under `run`, and `was_finished` if `resume` found a finished run.

    Raises:
        UsageError: the settings contradict each other or DATA.
        DataError: DATA is missing or unusable, or the loss became NaN or infinite (the run keeps the best weights).
        ArtifactError: weights, cache, checkpoint or run are damaged, or the unfinished run has other settings.
        MachineError: the disk is full, permission is denied, there is no such device, the weights cannot be downloaded,
            or a tracker's library is not installed.
    """
    with processes.process_group(report or Silent(), cuda=uses_cuda(settings.compute.device)) as (own_report, place):
        return _finetune(settings, own_report, place)


def _finetune(settings: FinetuneSettings, report: Reporter, place: ProcessRank) -> dict[str, Any]:
    started = time.monotonic()
    with Tracking(report) as tracking, contextlib.ExitStack() as publishing:
        with contextlib.ExitStack() as writing:
            opened = processes.from_first(lambda: _begin(settings, place, tracking, publishing, writing, report))
            if not isinstance(opened, OpenedRun):
                return opened
            opened = choose_settings(replace(opened, started=started), report)
            classifier = train_classifier(opened, report, tracking.lines)
            forgetting = _forgetting(opened, classifier, report)  # in all processes: they predict together
            written = processes.from_first(lambda: _write(opened, classifier, forgetting, place.size, report))
        tracking.finish(opened.out, written, classifier.lines)
    if classifier.stopped:
        raise not_finite(classifier.stopped, opened.settings.out)
    return {"run": str(opened.settings.out)} | written


def _begin(
    settings: FinetuneSettings,
    place: ProcessRank,
    tracking: Tracking,
    publishing: contextlib.ExitStack,
    writing: contextlib.ExitStack,
    report: Reporter,
) -> OpenedRun | dict[str, Any]:
    """Check the output, open DATA, and start the run, or return the result of `finetune` if it is already finished.

    Closing `writing` and then `publishing` completes the run.
    """
    tracking.open(settings.track)
    intent = after_restart(
        OutputIntent(location=settings.out, overwrite=settings.overwrite, resume=settings.resume),
        settings.data,
        job=place.job,
        restarts=place.restarts,
    )
    location = intent.location or free_name(settings.data)
    settings = replace(settings, out=location, overwrite=intent.overwrite, resume=intent.resume)
    check_outside("--out", location, settings.data, "DATA")
    out = publishing.enter_context(
        published(location, RUN_OUTPUT, report, overwrite=settings.overwrite, resume=settings.resume)
    )
    if settings.cache.directory is not None:
        check_outside("--cache", settings.cache.directory, settings.data, "DATA")
    run, settings = _open_parent(settings)
    recorded = settings_to_json(settings)
    if settings.resume:
        recover_run(out)
        if unfinished := unfinished_run(out):
            refuse_other(unfinished / CHECKPOINTS, recorded)
        elif (out / RUN_FILE).exists():
            if settings.track:
                report.warn(f"nothing was sent to {', '.join(settings.track)}, since the run was already finished.")
            return {"run": str(location)} | finished_info(out, recorded, location)
    check_run_output(out, overwrite=settings.overwrite or settings.resume)
    network, wanted, workers = settings.network, settings.validation_fraction, settings.compute.worker_count()
    dataset = _open_data(settings, report)
    weighting = ClassWeighting(balance=settings.balance, factors=settings.class_weights.factors(dataset.classes))
    describe_dataset(dataset, report)
    parent = None if run is None else _parent(run, settings, dataset, report)
    directory = writing.enter_context(
        new_run(out, overwrite=settings.overwrite, resume=settings.resume, report=report, job=place.job)
    )
    tracking.start(location, recorded, directory / CHECKPOINTS, resume=settings.resume)
    fraction = held_out_fraction(dataset, wanted, freeze=network.freeze, pretrained=network.pretrained)
    intensity = resolve_intensity(
        network.intensity, dataset, fraction=fraction, seed=network.seed, workers=workers, report=report
    )
    return OpenedRun(
        settings=settings,
        out=out,
        directory=directory,
        dataset=dataset,
        intensity=intensity,
        weighting=weighting,
        parent=parent,
    )


def _open_data(settings: FinetuneSettings, report: Reporter) -> Dataset:
    digests = DigestReader(settings.cache, workers=settings.compute.worker_count(), report=report)
    dataset = open_dataset(
        settings.data,
        group_by=group_pattern(settings.group_by),
        filters=settings.filters,
        columns=settings.columns,
        corrections=digests.corrections(settings.corrections),
    )
    if dataset.has_split("validation"):
        check_split_options(settings.data, settings.group_by, settings.columns, settings.validation_fraction)
    return dataset


def _open_parent(settings: FinetuneSettings) -> tuple[Run | None, FinetuneSettings]:
    """Load the run that `--backbone` names, and return the settings with its values where the user gave none."""
    backbone = settings.network.backbone
    if settings.out is not None and is_run(backbone) and lies_in(parse_location(backbone), settings.out):
        raise UsageError(f"--out {settings.out} is the run of --backbone, or contains it. Choose another --out.")
    run, network = open_starting_run(settings.network)
    if run is None and settings.rename:
        raise UsageError("--rename has no effect without --backbone RUN. Remove it.")
    return run, replace(settings, network=network)


def _parent(run: Run, settings: FinetuneSettings, dataset: Dataset, report: Reporter) -> Parent:
    """Find the run's classes in DATA, and report them."""
    parent = Parent(run, settings.network.backbone, names_before(run, dataset.classes, settings.rename))
    parent.describe_classes(dataset.classes, report)
    return parent


def _forgetting(opened: OpenedRun, classifier: Classifier, report: Reporter) -> dict[str, Any] | None:
    if opened.parent is None:
        return None
    from tlcli.training.forgetting import measure_forgetting  # imports timm

    return measure_forgetting(opened.parent, classifier, opened.settings, report)


def _write(
    opened: OpenedRun, classifier: Classifier, forgetting: dict[str, Any] | None, size: int, report: Reporter
) -> dict[str, Any]:
    """Export the network, write the run, and return the content of its `run.json`."""
    settings, images, workers = opened.settings, classifier.images, opened.settings.compute.worker_count()
    exporting = time.monotonic()
    onnx = classifier_as_onnx(classifier)
    finished = time.monotonic()
    info = run_info(settings_to_json(settings), opened.dataset, classifier, processes=size)
    seconds = {"total": finished - opened.started, "features": classifier.feature_seconds}
    seconds["training"] = classifier.training_seconds + finished - exporting
    info["choices"] = opened.choices or None
    info["parents"] = opened.parent.chain() if opened.parent else []
    info["forgetting"] = forgetting
    info["seconds"] = {name: round(value, 3) for name, value in seconds.items()}
    backbone = classifier.extractor.network.backbone
    content = RunContent(
        weights=backbone.state_dict(),
        config=make_timm_config(backbone, list(images.dataset.classes)),
        info=info,
        epochs=classifier.lines,
        predictions=[row for part in (classifier.validation, classifier.test) if part for row in part.rows],
        splits=splits_by_digest(classifier.splits, images.extraction.digests),
        report=run_report(
            info, classifier, name=opened.out.name, command=finetune_command(settings), workers=workers, report=report
        ),
        onnx=onnx,
        novelty=classifier.novelty.novelty.to_bytes() if classifier.novelty else None,
    )
    return write_run(opened.directory, content)
