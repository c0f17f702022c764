"""timm's config.json: writing it for a run, and building a network from one."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm

from tlcli.backbones.build import NON_TIMM, Backbone, build_backbone
from tlcli.errors import ArtifactError, DataError, TlcliError

# Of timm's pretrained_cfg, what still describes the network after training, and where it came from.
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
    """The config.json by which `timm.create_model("local-dir:RUN", pretrained=True)` builds this network.

    Args:
        backbone: The network, its head of as many outputs as there are classes.
        class_names: In the order of the outputs.
    """
    source: dict[str, Any] = dict(backbone.model.pretrained_cfg)  # type: ignore[arg-type]
    spec = backbone.input
    config = {key: source[key] for key in KEPT_CONFIG if source.get(key) is not None}
    config |= {
        "custom_load": False,
        "num_classes": len(class_names),
        "input_size": [spec.channels, spec.height, spec.width],
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop_fraction,
    }
    return {
        "architecture": source["architecture"],
        "num_classes": len(class_names),
        "num_features": getattr(backbone.model, "num_features", None),
        "label_names": list(class_names),
        "model_args": dict(backbone.arguments),
        "pretrained_cfg": config,
    }


RESERVED = frozenset(inspect.signature(timm.create_model).parameters) - {"kwargs"}
"""What `timm.create_model` heeds itself, such as `checkpoint_path`; all else goes to the architecture."""


def rebuild_backbone(config: dict[str, Any], *, classes: int | None = None, size: int | None = None) -> Backbone:
    """The network of a config.json, with random weights, ready for a strict load_state_dict.

    Args:
        config: As `make_timm_config` (or timm itself) writes it.
        classes: Another number of outputs than the config's.
        size: Another input size in pixels than the config's.

    Raises:
        ArtifactError: The config names no architecture that this version knows, or can't be understood.
    """
    architecture = config.get("architecture")
    if not isinstance(architecture, str):
        raise ArtifactError("This config.json names no architecture; expected timm's layout.")
    if architecture not in NON_TIMM and not timm.is_model(architecture):
        raise ArtifactError(
            f"This config.json asks for the architecture {architecture!r}, which timm {timm.__version__} does not "
            "know. Another version of timm may."
        )
    description = dict(config.get("pretrained_cfg") or config)
    description["architecture"] = architecture
    description.setdefault("num_classes", config.get("num_classes"))
    arguments = dict(config.get("model_args") or {})
    if reserved := sorted(RESERVED & set(arguments)):
        raise ArtifactError(
            f"This config.json sets {', '.join(reserved)} in model_args, by which timm could load other files; refused."
        )
    outputs = classes if classes is not None else description["num_classes"]
    try:
        return build_backbone(architecture, description, classes=outputs, size=size, arguments=arguments)
    except TlcliError:
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise ArtifactError(f"This config.json does not describe a {architecture}: {error}") from error


def read_timm_config(folder: Path) -> dict[str, Any]:
    """The config.json of a folder in timm's local-dir layout.

    Raises:
        DataError: There is none.
        ArtifactError: It is no JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{folder} is no folder with a timm config.json ({error.strerror}).", path=path) from error
    except ValueError as error:
        raise ArtifactError(f"{path} is no JSON: {error}", path=path) from error
    if not isinstance(config, dict):
        raise ArtifactError(f"{path} holds no JSON object.", path=path)
    return config


def find_weights(folder: Path) -> Path:
    """The weights file of such a folder: the one that timm would take."""
    names = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
