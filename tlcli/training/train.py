"""From an opened run to a classifier: choose what is left at `auto`, freeze layers, and train the rest."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tlcli import processes
from tlcli.backbones.heads import head_modules
from tlcli.datasets.dataset import Dataset
from tlcli.engines.choice import choose_engine
from tlcli.features.backbone import LoadedBackbone, place_backbone
from tlcli.features.cache import FeatureCache
from tlcli.features.extraction import Extraction
from tlcli.features.extractor import FeatureExtractor, describe_cut, freeze_at
from tlcli.features.file_digests import DigestReader
from tlcli.features.fingerprint import weights_digest
from tlcli.images.intensity import IntensityRange
from tlcli.inference.starting_network import load_starting_network
from tlcli.progress import Reporter
from tlcli.runs.directory import CHECKPOINTS
from tlcli.settings import FinetuneSettings, NetworkSettings
from tlcli.settings.augmentation import Augmentation, default_augmentation
from tlcli.settings.common_options import AUTO
from tlcli.settings.finetune import check_head_options
from tlcli.settings.grouping import NO_GROUPS
from tlcli.settings.recorded import settings_to_json
from tlcli.training.choices.choose import Choices, Chooser, apply_choices
from tlcli.training.classifier import Classifier
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.head.train import train_head
from tlcli.training.parent import Parent
from tlcli.training.tail.checkpoints import recorded_origin
from tlcli.training.time_budget import TimeBudget
from tlcli.training.unlabeled_images import list_unlabeled, with_unlabeled
from tlcli.training.usable_images import UsableImages, held_out_fraction, read_images, split_usable_images

if TYPE_CHECKING:
    from tlcli.training.tail.recipe import TailOptions
    from tlcli.training.tail.search_progress import OnLines

BACKBONE_SHARE = 0.25
"""Share of the budget that comparing backbones may take."""


@dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """A run that was started, and what it is trained on."""

    settings: FinetuneSettings
    """As the user gave them, with the run's location."""
    out: Path
    """Where the run is published, which differs from its location if that is a URL."""
    directory: Path
    """Where the run is written."""
    dataset: Dataset
    intensity: IntensityRange | None
    weighting: ClassWeighting
    parent: Parent | None = None
    """The run that training continues from; None for a backbone."""
    started: float = field(default_factory=time.monotonic)
    """The `time.monotonic()` at which the run began."""
    choices: Choices = field(default_factory=dict)
    """What was chosen for settings that are `auto`."""

    @property
    def budget(self) -> TimeBudget | None:
        """The time that the run may take; None without a limit."""
        seconds = self.settings.budget_seconds
        return None if seconds is None else TimeBudget(seconds=seconds, started=self.started)

    @property
    def resolved(self) -> FinetuneSettings:
        """The settings, with what was chosen."""
        return apply_choices(self.settings, self.choices)


def choose_settings(opened: OpenedRun, report: Reporter) -> OpenedRun:
    """Choose what the settings leave at `auto`. An unfinished run keeps what it chose before.

    Raises:
        UsageError: nothing can be compared with this network.
        DataError: images changed since the run began.
        MachineError: not enough disk space or memory.
    """
    checkpoints = opened.directory / CHECKPOINTS
    if opened.settings.resume and (origin := processes.from_first(lambda: recorded_origin(checkpoints))):
        return replace(opened, choices=origin.get("choices", {}))
    chooser = Chooser(
        settings=opened.settings,
        dataset=opened.dataset,
        weighting=opened.weighting,
        open_network=lambda network, quiet: _open_network(opened, network, quiet),
        report=report,
    )
    budget = opened.settings.budget_seconds
    return replace(opened, choices=chooser.choose(backbone_seconds=budget and BACKBONE_SHARE * budget))


def train_classifier(opened: OpenedRun, report: Reporter, on_lines: OnLines) -> Classifier:
    """Load the backbone, freeze the requested layers, and train the rest. All processes get the same classifier."""
    settings, dataset = opened.resolved, opened.dataset
    network = _open_network(opened, settings.network, report)
    freeze, workers = settings.network.freeze, settings.compute.worker_count()
    if freeze == "auto":
        report.note(network.describe("freezing depth chosen by validation loss"))
        return _train_tail(opened, network, on_lines)
    cut = freeze_at(network, freeze, workers=workers).cut  # before any work, so that an impossible cut fails at once
    report.note(network.describe(describe_cut(cut)))
    if cut.layer < cut.of:
        return _train_tail(opened, network, on_lines)
    check_head_options(opened.settings)  # `freeze` may also name the last layer
    settings = replace(opened.settings, network=replace(opened.settings.network, freeze="all"))
    settings = apply_choices(settings, opened.choices)
    views, seed = settings.training.views or 0, settings.network.seed
    augmentation = settings.augmentation if views and isinstance(settings.augmentation, Augmentation) else None
    extractor = freeze_at(
        network, "all", workers=workers, batch_size=settings.compute.batch_size, augmentation=augmentation, seed=seed
    )
    unlabeled = list_unlabeled(settings.unlabeled, dataset, report)
    extraction = _extract(opened, extractor)
    images, refit = _split(opened, extraction, extractor, report, freeze="all"), settings.refit
    reader, verify = DigestReader(settings.cache, workers=workers, report=report), settings.cache.verify
    images = with_unlabeled(images, unlabeled, extractor, reader, views=views, refit=refit, verify=verify)
    return train_head(extractor, images, views=views, weighting=opened.weighting, seed=seed, refit=refit)


def _open_network(opened: OpenedRun, wanted: NetworkSettings, report: Reporter) -> LoadedBackbone:
    compute, cache = opened.settings.compute, opened.settings.cache
    classes, images = len(opened.dataset.classes), len(opened.dataset.samples)
    choice = choose_engine(
        compute.device,
        compute.precision,
        compute.engine,
        images=None if wanted.freeze == "all" else images,
        frozen=wanted.freeze != "none",
    )
    feature_cache = FeatureCache(cache.root() if cache.enabled else None, report)
    return place_backbone(
        load_starting_network(
            wanted, opened.parent.run if opened.parent else None, classes=classes, cache=feature_cache
        ),
        choice,
        fit=wanted.input_fit,
        intensity=opened.intensity,
        cache=feature_cache,
        report=report,
    )


def _train_tail(opened: OpenedRun, network: LoadedBackbone, on_lines: OnLines) -> Classifier:
    """Fit the exact head as a start, then train later layers."""
    from tlcli.training.tail.distributed import open_checkpoints
    from tlcli.training.tail.start import fit_start, head_extractor
    from tlcli.training.tail.train import train_tail

    settings, dataset = opened.resolved, opened.dataset
    workers, options = settings.compute.worker_count(), _tail_options(opened)
    first_weights = weights_digest(network.backbone.model, head_modules(network.backbone.model))[:16]
    extractor = head_extractor(network, options, workers)
    extraction = read_images(dataset, network, workers) if extractor is None else _extract(opened, extractor)
    images = _split(opened, extraction, extractor, network.report, freeze=options.freeze)
    start = fit_start(network, extractor, images, options, opened.parent)
    origin = settings_to_json(opened.settings) | {"first weights": first_weights}
    if opened.parent is not None:
        origin["parent"] = opened.parent.run.info["sha256"]
    if opened.choices:
        origin["choices"] = opened.choices
    checkpoints = open_checkpoints(
        opened.directory, start.network, images, precision=options.precision, origin=origin, resume=settings.resume
    )
    return train_tail(start, options, workers=workers, checkpoints=checkpoints, on_lines=on_lines)


def _extract(opened: OpenedRun, extractor: FeatureExtractor) -> Extraction:
    """Compute the features of all images; with a budget, check first that they fit."""
    paths, verify = [sample.path for sample in opened.dataset.samples], opened.settings.cache.verify
    if opened.budget is not None:
        opened.budget.check(extractor, paths, verify=verify)
    return extractor.extract(paths, verify=verify)


def _split(
    opened: OpenedRun, extraction: Extraction, extractor: FeatureExtractor | None, report: Reporter, *, freeze: str
) -> UsableImages:
    settings, fraction = opened.settings, opened.settings.validation_fraction
    images = split_usable_images(
        opened.dataset,
        extraction,
        None if settings.group_by == NO_GROUPS else extractor,
        fraction=held_out_fraction(opened.dataset, fraction, freeze=freeze, pretrained=settings.network.pretrained),
        seed=settings.network.seed,
        balanced=settings.balance,
        report=report,
    )
    if opened.parent:
        images = opened.parent.inherit_splits(images)
        opened.parent.warn_if_seen(images, report)
    return images


def _tail_options(opened: OpenedRun) -> TailOptions:
    from tlcli.training.tail.recipe import TailOptions

    settings, network = opened.resolved, opened.settings.network
    augmentation = settings.augmentation if isinstance(settings.augmentation, Augmentation) else None
    default = default_augmentation(network.freeze, network.weights)
    if opened.settings.augmentation == AUTO:  # for the depths that benefit from augmentation, as with the default
        augmentation, default = None, augmentation or Augmentation()
    chosen_validation = settings.validation_fraction is not None or opened.dataset.has_split("validation")
    return TailOptions(
        freeze=network.freeze,
        pretrained=network.pretrained,
        batch_size=settings.compute.batch_size,
        precision=settings.compute.precision,
        augmentation=augmentation,
        default_augmentation=default,
        weighting=opened.weighting,
        chosen_validation=chosen_validation,
        refit=settings.refit or (network.freeze == "auto" and not chosen_validation),
        seed=network.seed,
        deadline=None if opened.budget is None else opened.budget.deadline,
        **asdict(settings.training),
    )
