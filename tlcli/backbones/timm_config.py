"""Rebuild a network from a config.json in timm's layout."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import timm

from tlcli.backbones.backbone import Backbone
from tlcli.backbones.build import NON_TIMM, build_backbone
from tlcli.errors import ArtifactError, DataError, TlcliError

RESERVED = frozenset(inspect.signature(timm.create_model).parameters) - {"kwargs"}
"""Arguments of `timm.create_model` itself, such as `checkpoint_path`; all others are passed to the architecture."""


def rebuild_backbone(config: dict[str, Any], *, classes: int | None = None, size: int | None = None) -> Backbone:
    """Build the network of a config.json with random weights, ready for a strict load_state_dict.

    Args:
        config: The content of a config.json from `config_file` or timm itself.
        classes: Number of outputs; None for the number in `config`.
        size: Side of the input in pixels; None for the size in `config`.

    Raises:
        ArtifactError: The architecture is missing or unknown to this version of timm, or `config` is invalid.
    """
    architecture = config.get("architecture")
    if not isinstance(architecture, str):
        raise ArtifactError("This config.json names no architecture. Expected timm's layout.")
    if architecture not in NON_TIMM and not timm.is_model(architecture):
        raise ArtifactError(
            f"This config.json has the architecture {architecture!r}, which timm {timm.__version__} does not provide. "
            "Try another version of timm."
        )
    description = dict(config.get("pretrained_cfg") or config)
    description["architecture"] = architecture
    description.setdefault("num_classes", config.get("num_classes"))
    arguments = dict(config.get("model_args") or {})
    if reserved := sorted(RESERVED & set(arguments)):
        raise ArtifactError(
            f"This config.json sets {', '.join(reserved)} in model_args, by which timm could load other files. "
            "Remove it."
        )
    outputs = classes if classes is not None else description["num_classes"]
    try:
        return build_backbone(architecture, description, classes=outputs, size=size, arguments=arguments)
    except TlcliError:
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise ArtifactError(f"This config.json does not describe a {architecture}: {error}") from error


def read_timm_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a folder in timm's local-dir layout.

    Raises:
        DataError: There is no config.json.
        ArtifactError: It is not a JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{folder} is not a folder with a timm config.json ({error.strerror}).", path=path) from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not valid JSON: {error}", path=path) from error
    if not isinstance(config, dict):
        raise ArtifactError(f"{path} is not a JSON object.", path=path)
    return config


def find_weights(folder: Path) -> Path:
    """Return the path of the weights file in such a folder, in timm's order of preference."""
    names = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
