"""A loaded backbone: its weights, its preprocessing, the device and engine that run it, and its feature cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tlcli.backbones.build import Backbone
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.choice import pick_device, pick_engine, pick_precision
from tlcli.features.cache import FeatureCache
from tlcli.images.intensity import IntensityRange
from tlcli.images.preprocess import Preprocessing
from tlcli.progress import Reporter
from tlcli.settings import ComputeSettings, NetworkSettings


@dataclass(frozen=True, kw_only=True)
class LoadedBackbone:
    """A backbone on its device, ready to be cut."""

    backbone: Backbone
    preprocessing: Preprocessing
    device: torch.device
    precision: str
    """Precision of frozen prefixes: `fp32`, `bf16` or `fp16`."""
    engine: str
    """Engine that runs frozen prefixes: `torch` or `onnx`."""
    engine_asked: str
    """The user's `--engine`. Only with `auto` may torch replace ONNX Runtime."""
    cache: FeatureCache
    report: Reporter

    @property
    def head_device(self) -> str:
        """Where the head is fitted: on `device`, but on the CPU instead of Apple GPUs, which lack float64."""
        return "cpu" if self.device.type == "mps" else str(self.device)

    def describe(self, cut: str) -> str:
        """Describe in one line what was loaded, where it is cut, and where it runs."""
        engine = ", ONNX Runtime" if self.engine == "onnx" else ""
        return (
            f"{self.backbone.name}, {self.backbone.origin}, {self.preprocessing.width} px, {cut}, {self.device}, "
            f"{self.precision}{engine}"
        )


def open_backbone(
    network: NetworkSettings,
    compute: ComputeSettings,
    cache: FeatureCache,
    *,
    classes: int,
    images: int | None,
    report: Reporter,
    intensity: IntensityRange | None = None,
) -> LoadedBackbone:
    """Load a backbone onto its device, and choose the engine of its frozen prefixes.

    This is where settings become values: nothing below this function takes settings.

    Args:
        network: The backbone, its weights, input size and fit.
        compute: Device, precision and engine.
        cache: Where its features are kept.
        classes: Outputs of the new head.
        images: Number of images, cached or not, by which `auto` picks an engine; None exports the prefix in any case.
        report: Receives a note about what was loaded.
        intensity: Values that become black and white in gray images with more than 8 bits; None for 0 to 65535.

    Raises:
        UsageError: there is no such backbone.
        ArtifactError: the weights are invalid.
        MachineError: the weights cannot be downloaded, or there is no such device.
    """
    device = pick_device(compute.device)
    precision = pick_precision(compute.precision, device)
    backbone = load_backbone(network.backbone, network.weights, classes=classes, size=network.size, seed=network.seed)
    backbone.model.to(device)
    return LoadedBackbone(
        backbone=backbone,
        preprocessing=make_preprocessing(backbone, network.fit, intensity),
        device=device,
        precision=precision,
        engine="torch" if network.freeze == "none" else pick_engine(compute.engine, device, precision, images),
        engine_asked=compute.engine,
        cache=cache,
        report=report,
    )


def make_preprocessing(backbone: Backbone, fit: str, intensity: IntensityRange | None = None) -> Preprocessing:
    """Return the backbone's preprocessing, with the user's fit (`crop`, `pad` or `squash`) and intensity range."""
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
