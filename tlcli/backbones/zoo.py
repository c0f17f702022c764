"""Load a backbone by name, with its weights, and list all backbones."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import timm
import torch

from tlcli.backbones import bundled_weights, hub
from tlcli.backbones.backbone import Backbone, WeightsRequest
from tlcli.backbones.build import NON_TIMM, build_backbone, create_network, pretrained_config
from tlcli.backbones.heads import reset_head
from tlcli.backbones.pretrained import find_source, load_weights
from tlcli.backbones.timm_config import find_weights, read_timm_config, rebuild_backbone

DEFAULT = "tf_efficientnet_lite0"
LOCAL_DIR = "local-dir:"
MAX_COUNTED = 100
"""Longest listing for which parameters are counted: counting builds each network."""


@dataclass(frozen=True, kw_only=True)
class BackboneListing:
    """A row of `tlcli backbones`."""

    name: str
    parameters: int | None
    """Number of parameters, including the original head; None if not counted."""
    input_size: int
    """Side of the input, in pixels."""
    local: bool
    """Whether its pretrained weights are on this machine."""


def load_backbone(
    name: str = DEFAULT,
    weights: str = "pretrained",
    *,
    classes: int | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Backbone:
    """Build a network and load its weights.

    Args:
        name: A timm name, "torchvision/alexnet", "lenet5", or "local-dir:FOLDER".
        weights: "pretrained", "none" (random), or a file.
        classes: Number of outputs of a new head; None keeps the pretrained head.
        size: Side of the input in pixels; None for the network's own.
        seed: Seed of random weights. The state of the global generator is restored.

    Raises:
        UsageError: The name is unknown, there are no pretrained weights, or the network does not support this size.
        DataError: The weights file or folder is missing.
        ArtifactError: It cannot be read, or holds another network.
        MachineError: The weights are not on this machine, and the hub cannot be reached.
    """
    with seeded(seed):
        if name.startswith(LOCAL_DIR):
            folder = Path(name.removeprefix(LOCAL_DIR))
            backbone = rebuild_backbone(read_timm_config(folder), classes=classes, size=size)
            weights = str(find_weights(folder)) if weights == "pretrained" else weights
        else:
            backbone = build_backbone(name, pretrained_config(name), classes=classes, size=size)
        origin, request = f"random weights (seed {seed})", None
        if weights != "none":
            origin = load_weights(backbone, name, weights)
            if not name.startswith(LOCAL_DIR):  # whose config.json may change as well
                request = WeightsRequest(weights=weights, size=size, source=find_source(backbone, name, weights))
        elif classes is not None:
            _copy_random_weights(backbone, name, size, seed)
        if classes is not None:
            reset_head(backbone.model)
    return replace(backbone, name=name, origin=origin, request=request)


def _copy_random_weights(backbone: Backbone, name: str, size: int | None, seed: int) -> None:
    """Give a random network the weights that it has with its original head, except in the head.

    Then all layers but the head depend on the seed only. Many networks initialize their head first, so another number
    of classes would change every layer, and cached features would not be reusable for another dataset.
    """
    if name.startswith(LOCAL_DIR):
        return
    torch.default_generator.manual_seed(seed)
    original = build_backbone(name, pretrained_config(name), classes=None, size=size).model.state_dict()
    own = backbone.model.state_dict()
    shared = {key: value for key, value in original.items() if key in own and value.shape == own[key].shape}
    backbone.model.load_state_dict(shared, strict=False)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the CPU's global generator, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def list_backbones(pattern: str | None = None) -> list[BackboneListing]:
    """List the backbones whose name contains `pattern`, or matches it if it contains `*`, `?`, or `[`.

    Backbones that timm does not provide come first. Parameters are counted if at most 100 backbones match.
    """
    pattern = (pattern or "*").lower()
    pattern = pattern if any(character in pattern for character in "*?[") else f"*{pattern}*"
    names = [name for name in [*NON_TIMM, *timm.list_models()] if fnmatch.fnmatch(name.lower(), pattern)]
    return [_listing(name, count=len(names) <= MAX_COUNTED) for name in names]


def local_backbones() -> list[str]:
    """Return the names of all backbones whose pretrained weights are on this machine, small networks first.

    Weights other than the default ones of an architecture have their tag in the name. Makes no network requests.
    """
    architectures = [*NON_TIMM, *timm.list_models()]
    defaults = {f"{name}.{pretrained_config(name).get('tag')}" for name in architectures}
    others = [name for name in timm.list_models(pretrained=True) if name not in defaults]
    return sorted((name for name in [*architectures, *others] if _is_local(name)), key=lambda name: (_cost(name), name))


def _is_local(name: str) -> bool:
    return (bundled_weights.weights_file(name) or hub.cached_weights(pretrained_config(name))) is not None


def _cost(name: str) -> int:
    """Return the parameters of a network, times the pixels of its input: about proportional to its time."""
    config = pretrained_config(name)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in create_network(name, config, {}).parameters())
    return parameters * int(tuple(config.get("input_size") or (3, 224, 224))[-1]) ** 2


def _listing(name: str, *, count: bool) -> BackboneListing:
    config = pretrained_config(name)
    parameters = None
    if count:
        with torch.device("meta"):
            parameters = sum(p.numel() for p in create_network(name, config, {}).parameters())
    size = tuple(config.get("input_size") or (3, 224, 224))[-1]
    return BackboneListing(name=name, parameters=parameters, input_size=size, local=_is_local(name))
