"""What is inspected: a run's network, or a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tlcli.backbones.build import Backbone
from tlcli.backbones.cut_points import trace_backbone
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.choice import pick_device
from tlcli.errors import UsageError
from tlcli.features.network import make_preprocessing
from tlcli.images.intensity import IntensityRange
from tlcli.images.preprocess import Preprocessing
from tlcli.inference.load_network import trained_network
from tlcli.insight.initial_network import start_of
from tlcli.insight.units import Tap, several
from tlcli.runs.directory import RUN_FILE, UNFINISHED
from tlcli.runs.run import Run, load_run
from tlcli.settings import InspectSettings
from tlcli.storage.urls import Url, is_url, parse_location


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network in eval mode, on its device, with its weights."""

    name: str
    """of the run, or of the backbone"""
    backbone: Backbone
    origin: str
    """of its weights, for people"""
    preprocessing: Preprocessing
    device: torch.device
    frozen: int | None = None
    """layers, from the first on, that the run's training left as they were; None for a backbone"""
    start: nn.Module | None = None
    """the network before the run's training; None where no layer was trained, or it is not to be had"""
    remark: str = ""
    """about `start`, for people"""

    def look_into(self, taps: Sequence[Tap]) -> nn.Module:
        """Images float [B, C, H, W], normalized, to a tuple of what leaves each layer, in one pass."""
        traced = trace_backbone(self.backbone)
        assert traced is not None, "choose_taps has traced it"
        return several(self.backbone.model, traced, taps, start=self.start, frozen=self.frozen)


def is_run(name: str) -> bool:
    """Whether this is a run's directory and not a backbone's name."""
    if is_url(name):
        return True
    path = Path(name)
    return (path / RUN_FILE).exists() or (path / UNFINISHED).exists()


def subject_name(network: str) -> str:
    """A name for people and for a folder: the run's own, or the backbone's."""
    if is_url(network):
        return Url(network).name
    return Path(network).resolve().name if is_run(network) else network.replace("/", "-").replace(":", "-")


def open_subject(settings: InspectSettings, intensity: IntensityRange | None = None) -> Subject:
    """Load the network that `settings.network` names.

    Args:
        settings: Which network, with which weights.
        intensity: What becomes black and white of gray with more than 8 bits, for a backbone.

    Raises:
        UsageError: no such backbone.
        ArtifactError: the run or the weights are broken.
        MachineError: no such device, or weights that would need a network.
    """
    device = pick_device(settings.compute.device)
    if is_run(settings.network):
        return _of_run(load_run(parse_location(settings.network)), settings.network, device)
    backbone = load_backbone(settings.network, settings.weights or "pretrained", size=settings.size)
    _settle(backbone.model, device)
    return Subject(
        name=subject_name(settings.network),
        backbone=backbone,
        origin=backbone.origin,
        preprocessing=make_preprocessing(backbone, settings.fit or "crop", intensity),
        device=device,
    )


def refuse_options_of_backbones(settings: InspectSettings) -> None:
    """Refuse options that say how to make what a run already has.

    Raises:
        UsageError: there is a run and such an option.
    """
    given = {
        "--size": settings.size,
        "--weights": settings.weights,
        "--fit": settings.fit,
        "--intensity": settings.intensity,
    }
    for option, value in given.items():
        if value is not None and is_run(settings.network):
            raise UsageError(f"{option} has no effect on a run, which has its own. Leave it out.")


def _settle(model: nn.Module, device: torch.device) -> None:
    model.eval().requires_grad_(False).to(device)


def _of_run(run: Run, network: str, device: torch.device) -> Subject:
    backbone = trained_network(run)
    start = start_of(run, backbone)
    for model in (backbone.model, start.model):
        if model is not None:
            _settle(model, device)
    return Subject(
        name=subject_name(network),
        backbone=backbone,
        origin=f"as trained in {parse_location(network)}",
        preprocessing=run.preprocessing,
        device=device,
        frozen=start.frozen,
        start=start.model,
        remark=start.remark,
    )
