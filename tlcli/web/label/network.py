"""The network that a session computes features with: a backbone, or that of a run, which also proposes labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tlcli.backbones.backbone import Backbone
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.choice import choose_engine
from tlcli.errors import UsageError
from tlcli.features.backbone import LoadedBackbone, make_preprocessing
from tlcli.features.cache import FeatureCache
from tlcli.features.extractor import FeatureExtractor, freeze_at
from tlcli.inference.calibration import calibrated_probabilities
from tlcli.inference.load_network import load_network
from tlcli.progress import Reporter
from tlcli.runs.directory import is_run
from tlcli.runs.run import Run, load_run
from tlcli.settings import CacheSettings, ComputeSettings, NetworkSettings
from tlcli.settings.network import intensity_range
from tlcli.storage.urls import parse_location


@dataclass(frozen=True, kw_only=True)
class LabelingNetwork:
    """A network cut before its head."""

    extractor: FeatureExtractor
    run: Run | None
    """The run that it comes from; None for a backbone."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the run; none for a backbone."""
        return () if self.run is None else self.run.classes

    def propose(self, features: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return the run's probabilities, float32 [N, k], by features [N, ...]; None for a backbone."""
        if self.run is None:
            return None
        with torch.inference_mode():
            logits = self.extractor.cut.tail.cpu().eval()(torch.from_numpy(features)).numpy()
        return calibrated_probabilities(logits, self.run.temperature, self.run.log_prior)


def open_labeling_network(
    wanted: NetworkSettings, compute: ComputeSettings, cache: CacheSettings, images: int, report: Reporter
) -> LabelingNetwork:
    """Open the network with all layers before its head frozen.

    Args:
        wanted: The network: a backbone, or a run.
        compute: Where it runs.
        cache: Where its features are kept.
        images: Number of images, by which the engine is chosen.
        report: Receives messages.

    Raises:
        UsageError: There is no such backbone, or an option has no effect with a run.
        ArtifactError: The run, the weights, or the cache are invalid.
        MachineError: There is no such device, or the weights would have to be downloaded.
    """
    choice = choose_engine(compute.device, compute.precision, compute.engine, images=images)
    run = _run(wanted)
    backbone = _backbone(wanted) if run is None else load_network(run)
    if choice.device.type != "cpu":
        backbone.model.to(choice.device)
    network = LoadedBackbone(
        backbone=backbone,
        preprocessing=(
            make_preprocessing(backbone, wanted.input_fit, intensity_range(wanted.intensity))
            if run is None
            else run.preprocessing
        ),
        device=choice.device,
        precision=choice.precision,
        engine=choice.engine,
        engine_requested=choice.requested,
        cache=FeatureCache(cache.root() if cache.enabled else None, report),
        report=report,
    )
    workers, batch_size = compute.worker_count(), compute.batch_size
    return LabelingNetwork(extractor=freeze_at(network, "all", workers=workers, batch_size=batch_size), run=run)


def _backbone(wanted: NetworkSettings) -> Backbone:
    return load_backbone(wanted.backbone, wanted.weights, classes=2, size=wanted.input_size, seed=wanted.seed)


def _run(wanted: NetworkSettings) -> Run | None:
    """Load the run that `--backbone` names; None if it names a backbone."""
    if not is_run(wanted.backbone):
        return None
    default = NetworkSettings()
    for name in ("weights", "size", "fit", "intensity"):
        if getattr(wanted, name) != getattr(default, name):
            raise UsageError(f"--{name} has no effect with the run {wanted.backbone}, which has its own. Remove it.")
    return load_run(parse_location(wanted.backbone))
