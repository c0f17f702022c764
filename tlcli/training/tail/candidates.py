"""The depths of freezing that a search tries."""

from __future__ import annotations

from dataclasses import dataclass

from tlcli.backbones.cut import cut_at
from tlcli.backbones.cut_points import trace_backbone
from tlcli.backbones.multiply_adds import multiply_adds_by_module
from tlcli.errors import UsageError
from tlcli.features.network import Network
from tlcli.training.tail.depths import depths


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A depth to try."""

    freeze: str
    """As for `--freeze`."""
    share: float
    """Of the network's multiply-adds that the tail takes, about; 1 where nobody counts."""


def candidates_for(network: Network, freeze: str) -> list[Candidate]:
    """The depths to try for `--freeze`, deepest first; that of the head alone is left out."""
    if freeze != "auto":
        return [Candidate(freeze=freeze, share=1.0)]
    traced = trace_backbone(network.backbone)
    if traced is None:
        return [Candidate(freeze="none", share=1.0)]
    costs = multiply_adds_by_module(network.backbone, [row.name for row in traced.layers])
    whole = max(1, sum(costs))
    layers = [layer for layer in depths(costs) if not layer or _can_cut(network, layer)]
    # Layers whose cost nobody could count must not look free.
    shares = [max(0.01, sum(costs[layer:]) / whole) if layer else 1.0 for layer in layers]
    return [Candidate(freeze=str(layer or "none"), share=share) for layer, share in zip(layers, shares, strict=True)]


def _can_cut(network: Network, layer: int) -> bool:
    try:
        cut_at(network.backbone, str(layer))
    except UsageError:
        return False
    return True
