"""The policy of `--freeze auto`: which depths to try, and for how many epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlcli.backbones.cut import cut_at
from tlcli.backbones.cut_points import trace_backbone
from tlcli.backbones.multiply_adds import multiply_adds_by_module
from tlcli.errors import UsageError
from tlcli.features.backbone import LoadedBackbone
from tlcli.features.extractor import FeatureExtractor, freeze_at
from tlcli.settings.augmentation import Augmentation
from tlcli.training.tail.recipe import TailOptions
from tlcli.training.tail.start import feature_batch_size

SHARES = (0.25, 0.5)
"""A cut is tried where the tail first has one of these shares of the multiply-adds; the last try trains everything."""
AUGMENTED_FROM = 0.5
"""Tails with at least this share of the multiply-adds train on augmented images. Shorter ones learn as much from
cached plain features (see benchmarks/README.md), in a fraction of the time."""
DEPTH_PATIENCE = 1
"""The search ends after this many depths in a row without improvement."""


@dataclass(frozen=True, kw_only=True)
class CandidateDepth:
    """A depth to try."""

    freeze: str
    """A value of `--freeze`."""
    share: float
    """Approximate share of the network's multiply-adds in the tail; 1 if they cannot be counted."""


def candidate_depths(network: LoadedBackbone, freeze: str) -> list[CandidateDepth]:
    """Return the depths to try for `--freeze`, deepest first, without that of the head alone."""
    if freeze != "auto":
        return [CandidateDepth(freeze=freeze, share=1.0)]
    traced = trace_backbone(network.backbone)
    if traced is None:
        return [CandidateDepth(freeze="none", share=1.0)]
    costs = multiply_adds_by_module(network.backbone, [row.name for row in traced.layers])
    whole = max(1, sum(costs))
    layers = [layer for layer in depths(costs) if not layer or _can_cut(network, layer)]
    # Layers whose cost could not be counted still cost something.
    shares = [max(0.01, sum(costs[layer:]) / whole) if layer else 1.0 for layer in layers]
    return [
        CandidateDepth(freeze=str(layer or "none"), share=share) for layer, share in zip(layers, shares, strict=True)
    ]


def augmentation_at(candidate: CandidateDepth, options: TailOptions) -> Augmentation | None:
    """Return the augmentation of the training images at a depth."""
    if options.augmentation is not None:
        return options.augmentation
    if options.freeze == "auto" and options.views is None and candidate.share < AUGMENTED_FROM:
        return None
    return options.default_augmentation if options.default_augmentation.enabled else None


def cut_at_depth(
    network: LoadedBackbone, candidate: CandidateDepth, options: TailOptions, workers: int
) -> FeatureExtractor:
    """Cut the network at a depth, for training images that are augmented as they are there.

    Raises:
        UsageError: the network cannot be cut there.
    """
    return freeze_at(
        network,
        candidate.freeze,
        workers=workers,
        batch_size=feature_batch_size(network, options.batch_size),
        augmentation=augmentation_at(candidate, options),
        seed=options.seed,
    )


def _can_cut(network: LoadedBackbone, layer: int) -> bool:
    try:
        cut_at(network.backbone, str(layer))
    except UsageError:
        return False
    return True


def depths(costs: Sequence[int]) -> list[int]:
    """Return the layers to cut after, deepest first; the last one, 0, freezes nothing.

    Args:
        costs: Multiply-adds of each layer, without the head's.
    """
    whole = sum(costs)
    found: list[int] = []
    for share in SHARES:
        tail = 0
        for layer in range(len(costs) - 1, 0, -1):
            tail += costs[layer]
            if tail >= share * whole:
                if layer not in found:
                    found.append(layer)
                break
    return [*found, 0]
