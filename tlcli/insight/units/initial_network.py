"""Rebuild the network that a run's training started from, from the settings that the run recorded.

The rebuilt network is used only if its frozen layers equal the run's to the last bit: then the pretrained weights, or
the random numbers that initialized it, are still those of the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlcli.backbones.backbone import Backbone
from tlcli.backbones.cut_points import TracedNetwork, trace_backbone
from tlcli.backbones.heads import head_names
from tlcli.backbones.zoo import load_backbone
from tlcli.errors import ArtifactError, TlcliError
from tlcli.inference.starting_network import network_of_run
from tlcli.runs.provenance import versions
from tlcli.runs.run import Run, load_run
from tlcli.settings import NetworkSettings
from tlcli.storage.files import from_portable_name
from tlcli.storage.urls import parse_location

INITIALIZERS = ("torch", "timm")
"""Packages whose versions determine random initial weights."""


@dataclass(frozen=True, kw_only=True)
class InitialNetwork:
    """The network that a run's training started from, if it can be rebuilt."""

    frozen: int
    """Leading layers that training did not change."""
    model: nn.Module | None = None
    """None if training changed no layer, or if the network cannot be rebuilt."""
    remark: str
    """Which of these applies, for display."""


def rebuild_initial_network(run: Run, backbone: Backbone) -> InitialNetwork:
    """Rebuild the network before the run's training.

    Args:
        run: The finished run whose training start is rebuilt.
        backbone: The run's network with its trained weights, on the CPU.
    """
    traced = trace_backbone(backbone)
    layers = run.layer if traced is None else len(traced.layers)
    if traced is None or run.layer >= layers:
        return InitialNetwork(frozen=layers, remark="Only the head was trained; all layers are as before fine-tuning.")
    unavailable = "The trained layers cannot be shown as they were before fine-tuning"
    recorded = run.info["settings"]
    try:
        initial = _load_initial(run, recorded)
    except TlcliError as error:
        return InitialNetwork(frozen=run.layer, remark=f"{unavailable}: {error}")
    except (KeyError, TypeError):
        return InitialNetwork(frozen=run.layer, remark=f"{unavailable}: run.json does not record their settings.")
    before, after = initial.model.state_dict(), backbone.model.state_dict()
    if reason := _mismatch(run, traced, before, after):
        return InitialNetwork(frozen=run.layer, remark=f"{unavailable}: {reason}")
    heads = tuple(f"{name}." for name in head_names(backbone.model))
    if all(name.startswith(heads) or torch.equal(value, after[name]) for name, value in before.items()):
        return InitialNetwork(
            frozen=layers, remark="Training changed only the head; all layers are as before fine-tuning."
        )
    return InitialNetwork(frozen=run.layer, model=initial.model, remark=f"Before: {initial.origin}.")


def _load_initial(run: Run, recorded: Mapping[str, Any]) -> Backbone:
    """Load the network that training started from: that of the run's parent, or a backbone."""
    classes, parents = len(run.classes), run.info.get("parents")
    size = run.preprocessing.width if recorded["size"] == "auto" else recorded["size"]
    if not parents:
        return load_backbone(
            run.info["backbone"], recorded["weights"], classes=classes, size=size, seed=recorded["seed"]
        )
    location = from_portable_name(parents[0]["location"])
    parent = load_run(parse_location(location))
    if parent.info["sha256"] != parents[0]["sha256"]:
        raise ArtifactError(f"{location} is no longer the run that training continued from.")
    wanted = NetworkSettings(backbone=location, size=size, seed=recorded["seed"])
    return network_of_run(wanted, parent, classes=classes)


def _mismatch(run: Run, traced: TracedNetwork, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> str | None:
    """Return why `before` is not what the run started from; None if nothing contradicts it."""
    if {name: value.shape for name, value in after.items()} != {name: value.shape for name, value in before.items()}:
        return f"{run.info['backbone']} has a different architecture in this version."
    frozen = tuple(
        f"{node.target}." for row in traced.layers[: run.layer] for node in row.nodes if node.op == "call_module"
    )
    origin = run.info.get("weights")
    if any(name.startswith(frozen) and not torch.equal(value, after[name]) for name, value in before.items()):
        return f"the weights it was trained from ({origin}) have changed."
    recorded_versions: dict[str, Any] = run.info.get("versions") or {}
    changed = [name for name in INITIALIZERS if recorded_versions.get(name) != versions()[name]]
    if not run.layer and run.info["settings"]["weights"] == "none" and changed:
        return f"its random weights were initialized by another version of {' and '.join(changed)}."
    return None
