"""Load the network to inspect: that of a run, or a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tlcli.backbones.backbone import Backbone
from tlcli.backbones.cut_points import trace_backbone
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.choice import pick_device
from tlcli.features.backbone import make_preprocessing
from tlcli.images.intensity import IntensityRange
from tlcli.images.preprocess import Preprocessing
from tlcli.inference.load_network import load_network
from tlcli.insight.activation_taps import ActivationTap
from tlcli.insight.units.initial_network import rebuild_initial_network
from tlcli.insight.units.tapped_network import tapped_network
from tlcli.runs.directory import is_run
from tlcli.runs.run import Run, load_run
from tlcli.storage.urls import Url, is_url, parse_location


@dataclass(frozen=True, kw_only=True)
class InspectedNetwork:
    """A network with its weights, in eval mode and on its device."""

    name: str
    """Name of the run or backbone."""
    backbone: Backbone
    origin: str
    """Where the weights come from, for display."""
    preprocessing: Preprocessing
    device: torch.device
    frozen: int | None = None
    """Leading layers that the run's training did not change; None for a backbone."""
    initial: nn.Module | None = None
    """The network before the run's training; None if no layer was trained or it cannot be rebuilt."""
    remark: str = ""
    """What is known about `initial`, for display."""

    def tapped(self, taps: Sequence[ActivationTap]) -> nn.Module:
        """Return a network from normalized images, float [B, C, H, W], to a tuple with each tapped layer's output."""
        traced = trace_backbone(self.backbone)
        assert traced is not None, "choose_taps has traced it"
        return tapped_network(self.backbone.model, traced, taps, initial=self.initial, frozen=self.frozen)


def network_name(network: str) -> str:
    """Return a name for display and for a folder: that of the run or the backbone."""
    if is_url(network):
        return Url(network).name
    return Path(network).resolve().name if is_run(network) else network.replace("/", "-").replace(":", "-")


def load_inspected_network(
    network: str,
    *,
    device: str,
    weights: str | None = None,
    size: int | None = None,
    fit: str | None = None,
    intensity: IntensityRange | None = None,
) -> InspectedNetwork:
    """Load the network of a run, or a backbone.

    Args:
        network: A run directory, or the name of a backbone.
        device: Device to compute on, as in `--device`.
        weights: A backbone's weights, as in `--weights`; None for the pretrained ones.
        size: A backbone's input size, in pixels; None for its default.
        fit: How to make an image square for a backbone, as in `--fit`; None crops its center.
        intensity: Levels that become black and white in gray images of more than 8 bits, for a backbone.

    Raises:
        UsageError: there is no such backbone.
        ArtifactError: the run or the weights are invalid.
        MachineError: there is no such device, or the weights would have to be downloaded.
    """
    torch_device = pick_device(device)
    if is_run(network):
        return _of_run(load_run(parse_location(network)), network, torch_device)
    backbone = load_backbone(network, weights or "pretrained", size=size)
    _prepare(backbone.model, torch_device)
    return InspectedNetwork(
        name=network_name(network),
        backbone=backbone,
        origin=backbone.origin,
        preprocessing=make_preprocessing(backbone, fit or "crop", intensity),
        device=torch_device,
    )


def _prepare(model: nn.Module, device: torch.device) -> None:
    model.eval().requires_grad_(False).to(device)


def _of_run(run: Run, network: str, device: torch.device) -> InspectedNetwork:
    backbone = load_network(run)
    initial = rebuild_initial_network(run, backbone)
    for model in (backbone.model, initial.model):
        if model is not None:
            _prepare(model, device)
    return InspectedNetwork(
        name=network_name(network),
        backbone=backbone,
        origin=f"as trained in {parse_location(network)}",
        preprocessing=run.preprocessing,
        device=device,
        frozen=initial.frozen,
        initial=initial.model,
        remark=initial.remark,
    )
