"""A loaded backbone: its weights, its preprocessing, the device and engine that run it, and its feature cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tlcli.backbones.backbone import Backbone
from tlcli.engines.choice import EngineChoice
from tlcli.engines.onnx_session import EXPORT_ENGINES
from tlcli.features.cache import FeatureCache
from tlcli.images.intensity import IntensityRange
from tlcli.images.preprocess import Preprocessing
from tlcli.progress import Reporter


@dataclass(frozen=True, kw_only=True)
class LoadedBackbone:
    """A backbone on its device, ready to be cut."""

    backbone: Backbone
    preprocessing: Preprocessing
    device: torch.device
    precision: str
    """Precision of frozen prefixes: `fp32`, `bf16` or `fp16`."""
    engine: str
    """Engine that runs frozen prefixes: `torch`, `onnx` or `openvino`."""
    engine_requested: str
    """The user's `--engine`. Only with `auto` may torch replace ONNX Runtime."""
    cache: FeatureCache
    report: Reporter

    @property
    def head_device(self) -> str:
        """Where the head is fitted: on `device`, but on the CPU instead of Apple GPUs, which lack float64."""
        return "cpu" if self.device.type == "mps" else str(self.device)

    def describe(self, cut: str) -> str:
        """Describe in one line what was loaded, where it is cut, and where it runs."""
        engine = f", {EXPORT_ENGINES[self.engine]}" if self.engine in EXPORT_ENGINES else ""
        return (
            f"{self.backbone.name}, {self.backbone.origin}, {self.preprocessing.width} px, {cut}, {self.device}, "
            f"{self.precision}{engine}"
        )


def place_backbone(
    backbone: Backbone,
    choice: EngineChoice,
    *,
    fit: str,
    intensity: IntensityRange | None,
    cache: FeatureCache,
    report: Reporter,
) -> LoadedBackbone:
    """Move a backbone to its device, unless that is the CPU, and decide how images become its input.

    Args:
        backbone: The backbone, with a head of the right size.
        choice: Where and how its frozen prefixes run.
        fit: `crop`, `pad` or `squash`.
        intensity: Values that become black and white in gray images with more than 8 bits; None for 0 to 65535.
        cache: Where its features are kept.
        report: Receives notes about its engine.
    """
    if choice.device.type != "cpu":
        backbone.model.to(choice.device)
    return LoadedBackbone(
        backbone=backbone,
        preprocessing=make_preprocessing(backbone, fit, intensity),
        device=choice.device,
        precision=choice.precision,
        engine=choice.engine,
        engine_requested=choice.requested,
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
