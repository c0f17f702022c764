"""Decide what the user left at `auto`, and apply what was decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tlcli import processes
from tlcli.datasets.dataset import Dataset
from tlcli.errors import UsageError
from tlcli.features.backbone import LoadedBackbone
from tlcli.features.extractor import FeatureExtractor, freeze_at
from tlcli.features.file_digests import DigestReader
from tlcli.progress import OnlyDetails, Reporter
from tlcli.settings import DEFAULT_BACKBONE, FinetuneSettings, NetworkSettings
from tlcli.settings.augmentation import Augmentation
from tlcli.settings.common_options import AUTO
from tlcli.settings.grouping import NO_GROUPS
from tlcli.training.choices import augmentation
from tlcli.training.choices.augmentation import compare_augmentations
from tlcli.training.choices.backbone import compare_backbones
from tlcli.training.choices.comparison import Comparison
from tlcli.training.choices.network_input import compare_fits, compare_sizes
from tlcli.training.choices.subset import FEWEST, Subset, choose_subset
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.tail.start import feature_batch_size

Choices = dict[str, dict[str, Any]]
"""For `run.json`: for each of `backbone`, `fit`, `size`, and `augmentation` that was left at `auto`, what was chosen
and what was tried."""


@dataclass(frozen=True, kw_only=True)
class Chooser:
    """Chooses what a run leaves at `auto`."""

    settings: FinetuneSettings
    dataset: Dataset
    weighting: ClassWeighting
    open_network: Callable[[NetworkSettings, Reporter], LoadedBackbone]
    """Loads a network whose backbone, size, and fit are fixed."""
    report: Reporter

    def choose(self, *, backbone_seconds: float | None = None) -> Choices:
        """Compare candidates for everything that is `auto`. Every process gets the same choices.

        Args:
            backbone_seconds: Time limit of the comparison of backbones; None compares all of them.

        Raises:
            UsageError: the network has no vector of features before its head, so nothing can be compared.
            DataError: images changed since the run began.
            MachineError: not enough disk space or memory.
        """
        settings, wanted = self.settings, open_choices(self.settings)
        if not wanted:
            return {}
        network = _defaults(settings.network)
        try:
            extractor = self._open(network)
        except UsageError as error:
            if settings.network.fit == AUTO or wanted != ["fit"]:
                raise
            self.report.detail(f"  fit {network.fit}: {error.message}")
            return {"fit": {"chosen": network.fit, "reason": error.message}}
        reader = DigestReader(settings.cache, workers=settings.compute.worker_count(), report=self.report)
        subset = choose_subset(self.dataset, reader, seed=network.seed)
        if subset.comparable:
            similar = settings.group_by != NO_GROUPS
            subset = subset.grouped(extractor, similar=similar, verify=settings.cache.verify)
        if not subset.comparable:
            return self._without_comparison(wanted, extractor, subset)
        choices = self._compare(wanted, network, extractor, subset, backbone_seconds)
        return processes.from_first(lambda: choices)

    def _compare(
        self,
        wanted: list[str],
        network: NetworkSettings,
        extractor: FeatureExtractor,
        subset: Subset,
        backbone_seconds: float | None,
    ) -> Choices:
        """Make one choice after the other, each with what was chosen before."""
        choices: Choices = {}
        if "backbone" in wanted:
            from tlcli.backbones.zoo import local_backbones

            names = [network.backbone, *(name for name in local_backbones() if name != network.backbone)]
            found = compare_backbones(
                names,
                lambda name: self._open(replace(network, backbone=name)),
                subset,
                self.weighting,
                seconds=backbone_seconds,
                report=self.report,
            )
            choices["backbone"] = self._done(found, found.chosen)
            network = replace(network, backbone=found.chosen)
            extractor = self._open(network)
        if "fit" in wanted:
            found = compare_fits(extractor, subset, self.weighting, self.report)
            choices["fit"] = self._done(found, found.chosen)
            network = replace(network, fit=found.chosen)
            extractor = extractor.with_fit(found.chosen)
        if "size" in wanted:
            own = extractor.network.preprocessing.width
            found = compare_sizes(
                own, lambda side: self._open(replace(network, size=side)), subset, self.weighting, self.report
            )
            side = int(found.chosen)
            choices["size"] = self._done(found, side) | {"own": own}
            network = replace(network, size=None if side == own else side)
            extractor = self._open(network)
        if "augmentation" in wanted:
            choices["augmentation"] = self._augmentation(extractor, subset)
        return choices

    def _open(self, network: NetworkSettings) -> FeatureExtractor:
        compute = self.settings.compute
        opened = self.open_network(network, OnlyDetails(self.report))
        batch_size = feature_batch_size(opened, compute.batch_size)
        return freeze_at(opened, "all", workers=compute.worker_count(), batch_size=batch_size, seed=network.seed)

    def _without_comparison(self, wanted: list[str], extractor: FeatureExtractor, subset: Subset) -> Choices:
        """Return the defaults, for too few images."""
        reason = f"{len(subset.samples)} training images to compare on; at least {FEWEST} are needed"
        if subset.fold_count < 2:
            reason = "all images are in one group, so none can be held out"
        self.report.note(f"Choice    nothing is compared, and defaults are kept: {reason}")
        own = extractor.network.preprocessing.width
        defaults: Choices = {
            "backbone": {"chosen": extractor.network.backbone.name},
            "fit": {"chosen": extractor.network.preprocessing.fit},
            "size": {"chosen": own, "own": own},
            "augmentation": {"chosen": None, "views": None},
        }
        return {name: defaults[name] | {"reason": reason} for name in wanted}

    def _augmentation(self, extractor: FeatureExtractor, subset: Subset) -> dict[str, Any]:
        views = self.settings.training.views or augmentation.VIEWS
        found, best = compare_augmentations(extractor, subset, self.weighting, self.report)
        return self._done(found, best.to_json() if best.enabled else None) | {"views": views}

    def _done(self, comparison: Comparison, chosen: object) -> dict[str, Any]:
        comparison.describe(self.report)
        return {"chosen": chosen} | comparison.to_json()


def _defaults(network: NetworkSettings) -> NetworkSettings:
    """Return the settings of the first candidate. Whatever is trained later, its layers before the head are frozen."""
    return replace(
        network,
        backbone=DEFAULT_BACKBONE if network.backbone == AUTO else network.backbone,
        size=network.input_size,
        fit=network.input_fit,
        freeze="all" if network.freeze == "none" else network.freeze,
    )


def open_choices(settings: FinetuneSettings) -> list[str]:
    """Return what is left at `auto`, in the order of decisions."""
    values = {
        "backbone": settings.network.backbone,
        "fit": settings.wanted_fit,
        "size": settings.network.size,
        "augmentation": settings.augmentation,
    }
    return [name for name, value in values.items() if value == AUTO]


def apply_choices(settings: FinetuneSettings, choices: Choices) -> FinetuneSettings:
    """Return the settings with what was chosen in the place of `auto`."""
    network, training, augmented = settings.network, settings.training, settings.augmentation
    if backbone := choices.get("backbone"):
        network = replace(network, backbone=backbone["chosen"])
    if fit := choices.get("fit"):
        network = replace(network, fit=fit["chosen"])
    if size := choices.get("size"):
        network = replace(network, size=None if size["chosen"] == size["own"] else size["chosen"])
    if found := choices.get("augmentation"):
        chosen = found["chosen"]
        augmented = None if chosen is None else Augmentation(**chosen)
        if chosen is None:
            training = replace(training, views=None)
        elif network.freeze == "all":
            training = replace(training, views=found["views"])
    return replace(settings, network=network, training=training, augmentation=augmented)
