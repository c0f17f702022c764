"""`tlcli finetune`: train a classifier on labeled images, and write it to a run directory."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlcli import processes
from tlcli.backbones.heads import head_modules
from tlcli.backbones.timm_config import make_timm_config
from tlcli.datasets.dataset import Dataset, open_dataset
from tlcli.datasets.descriptions import describe_dataset
from tlcli.datasets.intensity_measurement import resolve_intensity
from tlcli.datasets.splits import splits_by_digest
from tlcli.engines.choice import uses_cuda
from tlcli.errors import UsageError
from tlcli.features.backbone import LoadedBackbone, open_backbone
from tlcli.features.cache import FeatureCache
from tlcli.features.extraction import Extraction
from tlcli.features.extractor import describe_cut, freeze_at
from tlcli.features.fingerprint import weights_digest
from tlcli.progress import Reporter, Silent
from tlcli.reports.run_report import run_report
from tlcli.runs.directory import (
    CHECKPOINTS,
    FILES,
    RUN_FILE,
    check_run_output,
    free_name,
    recover_run,
    unfinished_run,
)
from tlcli.runs.existing_output import OutputIntent, after_restart, finished_info, not_finite, open_run
from tlcli.runs.provenance import settings_to_json
from tlcli.runs.write import RunContent, write_run
from tlcli.settings import FinetuneSettings
from tlcli.settings.augmentation import default_augmentation
from tlcli.settings.columns import NO_COLUMN
from tlcli.settings.command_line import finetune_command
from tlcli.settings.finetune import check_head_options
from tlcli.storage.files import check_outside
from tlcli.storage.outputs import Target, published
from tlcli.tracking.tracking import open_tracking
from tlcli.training.classifier import Classifier
from tlcli.training.head.train import train_head
from tlcli.training.run_info import run_info
from tlcli.training.tail.checkpoints import refuse_other
from tlcli.training.tail.recipe import TailOptions
from tlcli.training.tail.search import OnLines
from tlcli.training.tail.train import TailStart, fit_start, head_extractor, open_checkpoints, train_tail
from tlcli.training.usable_images import UsableImages, held_out_fraction, read_images, split_usable_images

RUN = Target(
    option="--out", last=RUN_FILE, foreign=lambda names: next((name for name in names if name not in FILES), None)
)


def finetune(settings: FinetuneSettings, report: Reporter | None = None) -> dict[str, Any]:
    """Train a classifier on DATA, and write the run directory.

    If torchrun started several processes, they train together. Each returns the same; the first one writes.

    Returns:
        The content of `run.json`, with the run's path under `run`, and `was_finished` if `resume` found a finished run.

    Raises:
        UsageError: the settings contradict each other or DATA.
        DataError: DATA is missing or unusable, or the loss became NaN or infinite (the run then holds the best weights
            before that).
        ArtifactError: weights, cache, checkpoint or run are damaged, or the unfinished run has other settings.
        MachineError: the disk is full, permission is denied, there is no such device, the weights cannot be downloaded,
            or a tracker's library is not installed.
    """
    with processes.process_group(report or Silent(), cuda=uses_cuda(settings.compute.device)) as own_report:
        return _finetune(settings, own_report)


def _finetune(settings: FinetuneSettings, report: Reporter) -> dict[str, Any]:
    started = time.monotonic()
    with open_tracking(settings.track, report) as tracking, contextlib.ExitStack() as publishing:
        settings, out, dataset = _begin(settings, report, publishing)
        if dataset is None:
            if settings.track:
                report.warn(f"nothing was sent to {', '.join(settings.track)}, since the run was already finished.")
            return {"run": str(settings.out)} | finished_info(out, settings_to_json(settings), settings.out)
        with contextlib.ExitStack() as writing:
            directory = open_run(out, writing, overwrite=settings.overwrite, resume=settings.resume, report=report)
            if directory is not None:
                tracking.start(
                    settings.out or out, settings_to_json(settings), directory / CHECKPOINTS, resume=settings.resume
                )
            classifier = train_classifier(settings, dataset, directory, report, tracking.lines)
            info = run_info(settings_to_json(settings), dataset, classifier)
            info["seconds"] = {
                "total": round(time.monotonic() - started, 3),
                "features": round(classifier.feature_seconds, 3),
                "training": round(classifier.training_seconds, 3),
            }
            written = _write(directory, out.name, info, classifier, settings, report)
        tracking.finish(out, written, classifier.lines)
    if classifier.stopped:
        raise not_finite(classifier.stopped, settings.out)
    return {"run": str(settings.out)} | written


@processes.first_for_all
def _begin(
    settings: FinetuneSettings, report: Reporter, publishing: contextlib.ExitStack
) -> tuple[FinetuneSettings, Path, Dataset | None]:
    """Check the output, and open DATA.

    Returns:
        The settings with the run's location; where the run is written, which differs if its location is a URL; and the
        labeled images, None if the run is already finished.
    """
    intent = after_restart(
        OutputIntent(location=settings.out, overwrite=settings.overwrite, resume=settings.resume), settings.data
    )
    out = intent.location or free_name(settings.data)
    settings = replace(settings, out=out, overwrite=intent.overwrite, resume=intent.resume)
    check_outside("--out", out, settings.data, "DATA")
    directory = publishing.enter_context(
        published(out, RUN, report, overwrite=settings.overwrite, resume=settings.resume)
    )
    if settings.cache.directory is not None:
        check_outside("--cache", settings.cache.directory, settings.data, "DATA")
    if settings.resume:
        recover_run(directory)
    unfinished = unfinished_run(directory) if settings.resume else None
    if unfinished is not None:
        refuse_other(unfinished / CHECKPOINTS, settings_to_json(settings))
    elif settings.resume and (directory / RUN_FILE).exists():
        return settings, directory, None
    check_run_output(directory, overwrite=settings.overwrite or settings.resume)
    dataset = open_dataset(
        settings.data, group_by=settings.group_by, filters=settings.filters, columns=settings.columns
    )
    _check_split(settings, dataset)
    describe_dataset(dataset, report)
    return settings, directory, dataset


def _check_split(settings: FinetuneSettings, dataset: Dataset) -> None:
    if not dataset.has_split("validation"):
        return
    for flag, given in (
        ("--validation-fraction", settings.validation_fraction is not None),
        ("--group-by", settings.group_by is not None),
        ("--group-column", settings.columns.group_column not in {None, NO_COLUMN}),
    ):
        if given:
            raise UsageError(f"{flag} has no effect: {settings.data} has its own validation images. Leave it out.")


def train_classifier(
    settings: FinetuneSettings, dataset: Dataset, directory: Path | None, report: Reporter, on_lines: OnLines
) -> Classifier:
    """Load the backbone, freeze the requested layers, and train the rest. All processes get the same classifier."""
    freeze, workers = settings.network.freeze, settings.compute.worker_count()
    network = _open_network(settings, dataset, report)
    if freeze == "auto":
        report.note(network.describe("freezing depth chosen by validation loss"))
        return _train_tail(settings, dataset, network, directory, on_lines)
    cut = freeze_at(network, freeze, workers=workers).cut  # before any work, so that an impossible cut fails at once
    report.note(network.describe(describe_cut(cut)))
    if cut.layer < cut.of:
        return _train_tail(settings, dataset, network, directory, on_lines)
    check_head_options(settings)  # `freeze` may also name the last layer
    views = settings.training.views or 0
    extractor = freeze_at(
        network,
        "all",
        workers=workers,
        batch_size=settings.compute.batch_size,
        augmentation=settings.augmentation if views else None,
        seed=settings.network.seed,
    )
    extraction = extractor.extract([sample.path for sample in dataset.samples], verify=settings.cache.verify)
    images = _split(settings, dataset, extraction, report, trains_tail=False)
    return train_head(extractor, images, views=views, balance=settings.balance, seed=settings.network.seed)


def _open_network(settings: FinetuneSettings, dataset: Dataset, report: Reporter) -> LoadedBackbone:
    freeze = settings.network.freeze
    return open_backbone(
        settings.network,
        settings.compute,
        FeatureCache(settings.cache.root() if settings.cache.enabled else None, report),
        classes=len(dataset.classes),
        images=None if freeze == "all" else len(dataset.samples),
        report=report,
        intensity=resolve_intensity(
            settings.network.intensity,
            dataset,
            fraction=held_out_fraction(dataset, settings.validation_fraction, trains_tail=freeze != "all"),
            seed=settings.network.seed,
            workers=settings.compute.worker_count(),
            report=report,
        ),
    )


def _train_tail(
    settings: FinetuneSettings,
    dataset: Dataset,
    network: LoadedBackbone,
    directory: Path | None,
    on_lines: OnLines,
) -> Classifier:
    """Fit the exact head as a start, then train later layers."""
    workers, options = settings.compute.worker_count(), _tail_options(settings)
    first_weights = weights_digest(network.backbone.model, head_modules(network.backbone.model))[:16]
    extractor = head_extractor(network, options, workers)
    if extractor is None:
        extraction = read_images(dataset, network, workers)
    else:
        extraction = extractor.extract([sample.path for sample in dataset.samples], verify=settings.cache.verify)
    images = _split(settings, dataset, extraction, network.report, trains_tail=True)
    if extractor is None:
        start = TailStart(network=network, images=images, head=None)
    else:
        start = fit_start(extractor, images, options)
    origin = settings_to_json(settings) | {"first weights": first_weights}
    checkpoints = open_checkpoints(directory, start, options, origin=origin, resume=settings.resume)
    return train_tail(start, options, workers=workers, checkpoints=checkpoints, on_lines=on_lines)


def _split(
    settings: FinetuneSettings, dataset: Dataset, extraction: Extraction, report: Reporter, *, trains_tail: bool
) -> UsableImages:
    return split_usable_images(
        dataset,
        extraction,
        fraction=held_out_fraction(dataset, settings.validation_fraction, trains_tail=trains_tail),
        seed=settings.network.seed,
        balanced=settings.balance,
        report=report,
    )


def _tail_options(settings: FinetuneSettings) -> TailOptions:
    network, training = settings.network, settings.training
    return TailOptions(
        freeze=network.freeze,
        pretrained=network.weights != "none",
        epochs=training.epochs,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        patience=training.patience,
        batch_size=settings.compute.batch_size,
        precision=settings.compute.precision,
        augmentation=settings.augmentation,
        default_augmentation=default_augmentation(network.freeze, network.weights),
        views=training.views,
        balance=settings.balance,
        seed=network.seed,
    )


@processes.first_for_all
def _write(
    directory: Path | None,
    name: str,
    info: dict[str, Any],
    classifier: Classifier,
    settings: FinetuneSettings,
    report: Reporter,
) -> dict[str, Any]:
    """Write the run, and return the content of its `run.json`."""
    assert directory is not None  # the first process has one
    backbone, images = classifier.extractor.network.backbone, classifier.images
    content = RunContent(
        weights=backbone.model.state_dict(),
        config=make_timm_config(backbone, list(images.dataset.classes)),
        info=info,
        epochs=classifier.lines,
        predictions=[row for part in (classifier.validation, classifier.test) if part for row in part.rows],
        splits=splits_by_digest(images.splits, images.extraction.digests),
        report=run_report(
            info,
            classifier,
            name=name,
            command=finetune_command(settings),
            workers=settings.compute.worker_count(),
            report=report,
        ),
        onnx=classifier.onnx,
    )
    return write_run(directory, content)
