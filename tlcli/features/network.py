"""A network with its weights, and where and how it runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tlcli.backbones.build import Backbone
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.choice import pick_device, pick_engine, pick_precision
from tlcli.features.fingerprint import fingerprint
from tlcli.features.listing import nearest_cache
from tlcli.features.memo import Memo
from tlcli.features.store import FeatureStore
from tlcli.images.intensity import IntensityRange
from tlcli.images.preprocess import Preprocessing
from tlcli.progress import Reporter
from tlcli.settings import CacheSettings, ComputeSettings, NetworkSettings

DEPTH = {"cut.layer", "cut.name", "augmentation", "seed"}
"""Ingredients in which caches of one run differ; with the cut, the weights before it differ too."""


@dataclass(kw_only=True)
class Network:
    """A network with its weights, and where and how it runs."""

    backbone: Backbone
    preprocessing: Preprocessing
    device: torch.device
    precision: str
    """Of frozen prefixes."""
    engine: str
    """Of frozen prefixes; becomes `torch` where ONNX Runtime was picked and can't take the network."""
    engine_asked: str
    """What the user said: `auto` may be replaced."""
    memo: Memo
    root: Path | None
    """The cache's directory; None where features stay in memory."""
    report: Reporter
    others_write: bool = False
    """Whether other processes may write the same caches at the same time."""
    stores: dict[str, FeatureStore] = field(default_factory=dict)
    """Those that are open, by fingerprint: their checksums are verified once."""

    def store(self, content: dict[str, Any], shape: tuple[int, ...], report: Reporter, *, cached: bool) -> FeatureStore:
        """The store of features of `shape` that depend on `content`; in memory where not `cached`."""
        name = fingerprint(content)
        if name in self.stores:
            return self.stores[name]
        for key, value in content.items():
            report.detail(f"  ingredient {key}: {value}")
        root = self.root if cached else None
        store = self.stores[name] = FeatureStore(root, content, shape, report, others_write=self.others_write)
        if root is not None and not len(store) and (near := nearest_cache(root, content)):
            listing, names = near
            # Another depth is nothing to wonder about; other weights or another size may be.
            say = report.detail if DEPTH & set(names) and set(names) <= DEPTH | {"weights"} else report.note
            say(
                f"New cache: the nearest one here ({listing.directory.name[:8]}, {listing.images:,} images) differs "
                f"in {', '.join(names)}"
            )
        return store

    def for_features(self, compute: ComputeSettings) -> ComputeSettings:
        """The hardware settings for features beside training: on a CPU the batch size is that of training only.

        A larger batch may take another kernel, which rounds otherwise; so features are the same with and without a
        cache.
        """
        return replace(compute, batch_size=None) if self.device.type == "cpu" else compute

    def head_device(self) -> str:
        """Where the head is fitted: with the network, except on Apple GPUs, which know no float64."""
        return "cpu" if self.device.type == "mps" else str(self.device)


def open_network(
    network: NetworkSettings,
    compute: ComputeSettings,
    cache: CacheSettings,
    *,
    classes: int,
    images: int | None,
    report: Reporter,
    intensity: IntensityRange | None = None,
    others_write: bool = False,
) -> Network:
    """Load the backbone.

    Args:
        network: Which backbone, with which weights.
        compute: Where it runs.
        cache: Where features are kept.
        classes: Outputs of the new head.
        images: How many there are, cached or not; None where the frozen part is exported in any case.
        report: Told what was loaded.
        intensity: What becomes black and white of gray with more than 8 bits; None takes the range of 16 bits.
        others_write: Whether other processes may write the same caches at the same time.

    Raises:
        UsageError: no such backbone.
        ArtifactError: the weights are broken.
        MachineError: weights that would need a network, or no such device.
    """
    device = pick_device(compute.device)
    precision = pick_precision(compute.precision, device)
    backbone = load_backbone(network.backbone, network.weights, classes=classes, size=network.size, seed=network.seed)
    backbone.model.to(device)
    root = cache.root() if cache.enabled else None
    return Network(
        backbone=backbone,
        preprocessing=make_preprocessing(backbone, network.fit, intensity),
        device=device,
        precision=precision,
        engine="torch" if network.freeze == "none" else pick_engine(compute.engine, device, precision, images),
        engine_asked=compute.engine,
        memo=Memo(root, report),
        root=root,
        report=report,
        others_write=others_write,
    )


def describe_network(network: Network, where: str) -> str:
    """In one line for people: what was loaded, `where` it is cut, where it runs."""
    backbone = network.backbone
    side = network.preprocessing.width
    engine = ", ONNX Runtime" if network.engine == "onnx" else ""
    return f"{backbone.name}, {backbone.origin}, {side} px, {where}, {network.device}, {network.precision}{engine}"


def make_preprocessing(backbone: Backbone, fit: str, intensity: IntensityRange | None = None) -> Preprocessing:
    """The backbone's own preprocessing, with the user's choice of how images become square."""
    spec = backbone.input
    return Preprocessing(
        height=spec.height,
        width=spec.width,
        channels=spec.channels,
        fit=fit,
        crop_fraction=spec.crop_fraction,
        interpolation=spec.interpolation,
        mean=spec.mean,
        std=spec.std,
        intensity=intensity,
    )
