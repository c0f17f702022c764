"""The config.json of a run, in timm's layout. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlcli.backbones.backbone import Backbone

# The keys of timm's pretrained_cfg that still hold after training.
KEPT_CONFIG = (
    "tag",
    "fixed_input_size",
    "crop_mode",
    "pool_size",
    "first_conv",
    "classifier",
    "global_pool",
    "license",
    "origin_url",
    "paper_name",
    "paper_ids",
    "notes",
)


def make_timm_config(backbone: Backbone, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the config.json from which `timm.create_model("local-dir:RUN", pretrained=True)` builds this network.

    Args:
        backbone: The network, whose head has one output per class.
        class_names: Names of the classes, in the order of the outputs.
    """
    network = backbone.unbuilt.description if backbone.unbuilt else describe_network(backbone)
    return {
        "architecture": network["architecture"],
        "num_classes": len(class_names),
        "num_features": network["num_features"],
        "label_names": list(class_names),
        "model_args": network["model_args"],
        "pretrained_cfg": network["pretrained_cfg"] | {"num_classes": len(class_names)},
    }


def describe_network(backbone: Backbone) -> dict[str, Any]:
    """Return the part of a network's config.json that does not depend on its classes."""
    source: dict[str, Any] = dict(backbone.model.pretrained_cfg)  # type: ignore[arg-type]
    spec = backbone.input
    config = {key: source[key] for key in KEPT_CONFIG if source.get(key) is not None}
    config |= {
        "custom_load": False,
        "num_classes": None,
        "input_size": [spec.channels, spec.height, spec.width],
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop_fraction,
    }
    return {
        "architecture": source["architecture"],
        "num_features": getattr(backbone.model, "num_features", None),
        "model_args": dict(backbone.arguments),
        "pretrained_cfg": config,
    }
