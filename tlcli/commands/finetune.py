"""`tlcli finetune`: train a classifier on labeled images, and write it to a run directory."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tlcli import processes
from tlcli.backbones.heads import head_modules
from tlcli.backbones.timm_config import make_timm_config
from tlcli.backbones.zoo import load_backbone
from tlcli.datasets.dataset import Dataset, open_dataset
from tlcli.datasets.descriptions import describe_dataset
from tlcli.datasets.intensity_measurement import resolve_intensity
from tlcli.datasets.splits import splits_by_digest
from tlcli.engines.choice import choose_engine, uses_cuda
from tlcli.features.backbone import LoadedBackbone, place_backbone
from tlcli.features.cache import FeatureCache
from tlcli.features.extraction import Extraction
from tlcli.features.extractor import FeatureExtractor, describe_cut, freeze_at
from tlcli.features.file_digests import DigestReader
from tlcli.features.fingerprint import weights_digest
from tlcli.images.intensity import IntensityRange
from tlcli.processes import ProcessRank
from tlcli.progress import Reporter, Silent
from tlcli.reports.run_report import run_report
from tlcli.runs.directory import (
    CHECKPOINTS,
    RUN_FILE,
    RUN_OUTPUT,
    check_run_output,
    free_name,
    new_run,
    recover_run,
    unfinished_run,
)
from tlcli.runs.existing_output import OutputIntent, after_restart, finished_info, not_finite
from tlcli.runs.write import RunContent, write_run
from tlcli.settings import FinetuneSettings
from tlcli.settings.augmentation import default_augmentation
from tlcli.settings.command_line import finetune_command
from tlcli.settings.finetune import check_head_options
from tlcli.settings.grouping import NO_GROUPS, check_split_options, group_pattern
from tlcli.settings.recorded import settings_to_json
from tlcli.storage.files import check_outside
from tlcli.storage.outputs import published
from tlcli.tracking.tracking import Tracking
from tlcli.training.classifier import Classifier
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.head.train import train_head
from tlcli.training.onnx_model import classifier_as_onnx
from tlcli.training.run_info import run_info
from tlcli.training.tail.checkpoints import refuse_other
from tlcli.training.tail.distributed import open_checkpoints
from tlcli.training.tail.recipe import TailOptions
from tlcli.training.tail.search_progress import OnLines
from tlcli.training.tail.start import fit_start, head_extractor
from tlcli.training.tail.train import train_tail
from tlcli.training.unlabeled_images import list_unlabeled, with_unlabeled
from tlcli.training.usable_images import UsableImages, held_out_fraction, read_images, split_usable_images


@dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """A run that was started, and what it is trained on."""

    settings: FinetuneSettings
    """With the run's location."""
    out: Path
    """Where the run is published, which differs from its location if that is a URL."""
    directory: Path
    """Where the run is written."""
    dataset: Dataset
    intensity: IntensityRange | None
    weighting: ClassWeighting


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
            classifier = train_classifier(opened, report, tracking.lines)
            written = processes.from_first(lambda: _write(opened, classifier, started, place.size, report))
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
    dataset = open_dataset(
        settings.data,
        group_by=group_pattern(settings.group_by),
        filters=settings.filters,
        columns=settings.columns,
        corrections=DigestReader(settings.cache, workers=workers, report=report).corrections(settings.corrections),
    )
    if dataset.has_split("validation"):
        check_split_options(settings.data, settings.group_by, settings.columns, wanted)
    weighting = ClassWeighting(balance=settings.balance, factors=settings.class_weights.factors(dataset.classes))
    describe_dataset(dataset, report)
    directory = writing.enter_context(
        new_run(out, overwrite=settings.overwrite, resume=settings.resume, report=report, job=place.job)
    )
    tracking.start(location, recorded, directory / CHECKPOINTS, resume=settings.resume)
    fraction = held_out_fraction(dataset, wanted, freeze=network.freeze, pretrained=network.pretrained)
    intensity = resolve_intensity(
        network.intensity, dataset, fraction=fraction, seed=network.seed, workers=workers, report=report
    )
    return OpenedRun(
        settings=settings, out=out, directory=directory, dataset=dataset, intensity=intensity, weighting=weighting
    )


def train_classifier(opened: OpenedRun, report: Reporter, on_lines: OnLines) -> Classifier:
    """Load the backbone, freeze the requested layers, and train the rest. All processes get the same classifier."""
    settings, dataset, network = opened.settings, opened.dataset, _open_network(opened, report)
    freeze, workers = settings.network.freeze, settings.compute.worker_count()
    if freeze == "auto":
        report.note(network.describe("freezing depth chosen by validation loss"))
        return _train_tail(opened, network, on_lines)
    cut = freeze_at(network, freeze, workers=workers).cut  # before any work, so that an impossible cut fails at once
    report.note(network.describe(describe_cut(cut)))
    if cut.layer < cut.of:
        return _train_tail(opened, network, on_lines)
    check_head_options(settings)  # `freeze` may also name the last layer
    views = settings.training.views or 0
    seed, augmentation = settings.network.seed, settings.augmentation if views else None
    extractor = freeze_at(
        network, "all", workers=workers, batch_size=settings.compute.batch_size, augmentation=augmentation, seed=seed
    )
    unlabeled = list_unlabeled(settings.unlabeled, dataset, report)
    extraction = extractor.extract([sample.path for sample in dataset.samples], verify=settings.cache.verify)
    images, refit = _split(opened, extraction, extractor, report, freeze="all"), settings.refit
    reader, verify = DigestReader(settings.cache, workers=workers, report=report), settings.cache.verify
    images = with_unlabeled(images, unlabeled, extractor, reader, views=views, refit=refit, verify=verify)
    return train_head(extractor, images, views=views, weighting=opened.weighting, seed=seed, refit=refit)


def _open_network(opened: OpenedRun, report: Reporter) -> LoadedBackbone:
    wanted, compute, cache = opened.settings.network, opened.settings.compute, opened.settings.cache
    classes, images = len(opened.dataset.classes), len(opened.dataset.samples)
    choice = choose_engine(
        compute.device,
        compute.precision,
        compute.engine,
        images=None if wanted.freeze == "all" else images,
        frozen=wanted.freeze != "none",
    )
    return place_backbone(
        load_backbone(wanted.backbone, wanted.weights, classes=classes, size=wanted.size, seed=wanted.seed),
        choice,
        fit=wanted.fit,
        intensity=opened.intensity,
        cache=FeatureCache(cache.root() if cache.enabled else None, report),
        report=report,
    )


def _train_tail(opened: OpenedRun, network: LoadedBackbone, on_lines: OnLines) -> Classifier:
    """Fit the exact head as a start, then train later layers."""
    settings, dataset = opened.settings, opened.dataset
    workers, options = settings.compute.worker_count(), _tail_options(opened)
    first_weights = weights_digest(network.backbone.model, head_modules(network.backbone.model))[:16]
    extractor, paths = head_extractor(network, options, workers), [sample.path for sample in dataset.samples]
    if extractor is None:
        extraction = read_images(dataset, network, workers)
    else:
        extraction = extractor.extract(paths, verify=settings.cache.verify)
    images = _split(opened, extraction, extractor, network.report, freeze=options.freeze)
    start = fit_start(network, extractor, images, options)
    origin = settings_to_json(settings) | {"first weights": first_weights}
    checkpoints = open_checkpoints(
        opened.directory, start.network, images, precision=options.precision, origin=origin, resume=settings.resume
    )
    return train_tail(start, options, workers=workers, checkpoints=checkpoints, on_lines=on_lines)


def _split(
    opened: OpenedRun, extraction: Extraction, extractor: FeatureExtractor | None, report: Reporter, *, freeze: str
) -> UsableImages:
    settings, fraction = opened.settings, opened.settings.validation_fraction
    return split_usable_images(
        opened.dataset,
        extraction,
        None if settings.group_by == NO_GROUPS else extractor,
        fraction=held_out_fraction(opened.dataset, fraction, freeze=freeze, pretrained=settings.network.pretrained),
        seed=settings.network.seed,
        balanced=settings.balance,
        report=report,
    )


def _tail_options(opened: OpenedRun) -> TailOptions:
    settings, network = opened.settings, opened.settings.network
    chosen_validation = settings.validation_fraction is not None or opened.dataset.has_split("validation")
    return TailOptions(
        freeze=network.freeze,
        pretrained=network.pretrained,
        batch_size=settings.compute.batch_size,
        precision=settings.compute.precision,
        augmentation=settings.augmentation,
        default_augmentation=default_augmentation(network.freeze, network.weights),
        weighting=opened.weighting,
        chosen_validation=chosen_validation,
        refit=settings.refit or (network.freeze == "auto" and not chosen_validation),
        seed=network.seed,
        **asdict(settings.training),
    )


def _write(opened: OpenedRun, classifier: Classifier, started: float, size: int, report: Reporter) -> dict[str, Any]:
    """Export the network, write the run, and return the content of its `run.json`."""
    settings, images, workers = opened.settings, classifier.images, opened.settings.compute.worker_count()
    exporting = time.monotonic()
    onnx = classifier_as_onnx(classifier)
    finished = time.monotonic()
    info = run_info(settings_to_json(settings), opened.dataset, classifier, processes=size)
    seconds = {"total": finished - started, "features": classifier.feature_seconds}
    seconds["training"] = classifier.training_seconds + finished - exporting
    info["seconds"] = {name: round(value, 3) for name, value in seconds.items()}
    backbone = classifier.extractor.network.backbone
    content = RunContent(
        weights=backbone.model.state_dict(),
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
