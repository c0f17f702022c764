"""The network that a run's training of layers began with, made again from what the run says of it.

It is used only where its frozen layers are the run's own to the last bit: then its weights, or the random numbers that
they were drawn from, are still those of the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlcli.backbones.build import Backbone
from tlcli.backbones.cut_points import TracedNetwork, trace_backbone
from tlcli.backbones.heads import head_names
from tlcli.backbones.zoo import load_backbone
from tlcli.errors import TlcliError
from tlcli.runs.provenance import versions
from tlcli.runs.run import Run

DRAWN_BY = ("torch", "timm")
"""Packages whose versions random weights depend on."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a run's training began with, as far as it is to be had."""

    frozen: int
    """layers, from the first on, that are as they were"""
    model: nn.Module | None = None
    """None where all layers are as they were, or it is not to be had"""
    remark: str
    """which of these it is, for people"""


def start_of(run: Run, backbone: Backbone) -> Start:
    """The network before the run's training.

    Args:
        run: Finished.
        backbone: Its network, with its weights, on the CPU.
    """
    traced = trace_backbone(backbone)
    layers = run.layer if traced is None else len(traced.layers)
    if traced is None or run.layer >= layers:
        return Start(frozen=layers, remark="Only the head was trained: all layers are as before fine-tuning.")
    missing = "What the trained layers were before fine-tuning can't be shown"
    asked = run.info["settings"]
    try:
        start = load_backbone(
            run.info["backbone"], asked["weights"], classes=len(run.classes), size=asked["size"], seed=asked["seed"]
        )
    except TlcliError as error:
        return Start(frozen=run.layer, remark=f"{missing}: {error}")
    except (KeyError, TypeError):
        return Start(frozen=run.layer, remark=f"{missing}: run.json doesn't say what they were.")
    was, now = start.model.state_dict(), backbone.model.state_dict()
    if reason := _differs(run, traced, was, now):
        return Start(frozen=run.layer, remark=f"{missing}: {reason}")
    heads = tuple(f"{name}." for name in head_names(backbone.model))
    if all(name.startswith(heads) or torch.equal(value, now[name]) for name, value in was.items()):
        return Start(frozen=layers, remark="Training changed no layer but the head: all are as before fine-tuning.")
    return Start(frozen=run.layer, model=start.model, remark=f"Before: {start.origin}.")


def _differs(run: Run, traced: TracedNetwork, was: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> str | None:
    """Why `was` is not what the run began with; None where it is, as far as can be told."""
    if {name: value.shape for name, value in now.items()} != {name: value.shape for name, value in was.items()}:
        return f"{run.info['backbone']} is another network in this version."
    frozen = tuple(
        f"{node.target}." for row in traced.layers[: run.layer] for node in row.nodes if node.op == "call_module"
    )
    origin = run.info.get("weights")
    if any(name.startswith(frozen) and not torch.equal(value, now[name]) for name, value in was.items()):
        return f"the weights it was trained from ({origin}) are not what they were."
    made_with: dict[str, Any] = run.info.get("versions") or {}
    changed = [name for name in DRAWN_BY if made_with.get(name) != versions()[name]]
    if not run.layer and run.info["settings"]["weights"] == "none" and changed:
        return f"its random weights were drawn by another version of {' and '.join(changed)}."
    return None
