"""What is inspected: a run's network, or a backbone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from tlcli.backbones.engine import pick_device
from tlcli.backbones.network import Backbone
from tlcli.backbones.zoo import load_backbone
from tlcli.errors import UsageError
from tlcli.features.network import make_preprocessing
from tlcli.images.preprocess import Preprocessing
from tlcli.inference.trained import trained_network
from tlcli.run_directory import RUN_FILE, UNFINISHED
from tlcli.runs import load_run
from tlcli.settings import InspectSettings


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


def is_run(name: str) -> bool:
    """Whether this is a run's directory and not a backbone's name."""
    path = Path(name)
    return (path / RUN_FILE).exists() or (path / UNFINISHED).exists()


def subject_name(network: str) -> str:
    """A name for people and for a folder: the run's own, or the backbone's."""
    return Path(network).resolve().name if is_run(network) else network.replace("/", "-").replace(":", "-")


def open_subject(settings: InspectSettings) -> Subject:
    """Load the network that `settings.network` names.

    Raises:
        UsageError: no such backbone, or an option that has no effect on a run.
        ArtifactError: the run or the weights are broken.
        MachineError: no such device, or weights that would need a network.
    """
    device = pick_device(settings.compute.device)
    if is_run(settings.network):
        for option, value in (("--size", settings.size), ("--weights", settings.weights), ("--fit", settings.fit)):
            if value is not None:
                raise UsageError(f"{option} has no effect on a run, which has its own. Leave it out.")
        run = load_run(Path(settings.network))
        backbone = trained_network(run)
        origin, preprocessing = f"as trained in {run.directory}", run.preprocessing
    else:
        backbone = load_backbone(settings.network, settings.weights or "pretrained", size=settings.size)
        origin, preprocessing = backbone.origin, make_preprocessing(backbone, settings.fit or "crop")
    backbone.model.eval().requires_grad_(False).to(device)
    name = subject_name(settings.network)
    return Subject(name=name, backbone=backbone, origin=origin, preprocessing=preprocessing, device=device)
