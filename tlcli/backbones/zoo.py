"""From the name of a backbone to a network with weights, and what its images must look like."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import timm
import torch

from tlcli.backbones import bundled_weights, hub
from tlcli.backbones.build import NON_TIMM, Backbone, build_backbone, create_network, pretrained_config
from tlcli.backbones.heads import reset_head
from tlcli.backbones.pretrained import load_weights
from tlcli.backbones.timm_config import find_weights, read_timm_config, rebuild_backbone

DEFAULT = bundled_weights.NAME
LOCAL_DIR = "local-dir:"
COUNTED = 100  # parameters are counted for listings up to this long: each network must be built for it


@dataclass(frozen=True, kw_only=True)
class BackboneListing:
    """A line of `tlcli backbones`."""

    name: str
    parameters: int | None
    """with its original head; None where nobody counted"""
    input_size: int
    """pixels"""
    local: bool
    """its pretrained weights are on this machine"""


def load_backbone(
    name: str = DEFAULT,
    weights: str = "pretrained",
    *,
    classes: int | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Backbone:
    """Build a network and fill it with weights.

    Args:
        name: A timm name, "torchvision/alexnet", "lenet5", or "local-dir:FOLDER".
        weights: "pretrained", "none" (random), or a file.
        classes: Outputs of a fresh head; None keeps the pretrained one.
        size: Side of the input in pixels; None for the network's own.
        seed: For whatever is random; the global generator's state is left as it was.

    Raises:
        UsageError: Unknown name, no published weights, or a size the network can't take.
        DataError: The weights file or folder is missing.
        ArtifactError: It can't be read, or holds another network.
        MachineError: The weights are not on this machine and the hub can't be reached.
    """
    with seeded(seed):
        if name.startswith(LOCAL_DIR):
            folder = Path(name.removeprefix(LOCAL_DIR))
            backbone = rebuild_backbone(read_timm_config(folder), classes=classes, size=size)
            weights = str(find_weights(folder)) if weights == "pretrained" else weights
        else:
            backbone = build_backbone(name, pretrained_config(name), classes=classes, size=size)
        origin = f"random weights (seed {seed})"
        if weights != "none":
            origin = load_weights(backbone, name, weights)
        elif classes is not None:
            _draw_as_published(backbone, name, size, seed)
        if classes is not None:
            reset_head(backbone.model)
    return Backbone(name=name, model=backbone.model, input=backbone.input, origin=origin, arguments=backbone.arguments)


def _draw_as_published(backbone: Backbone, name: str, size: int | None, seed: int) -> None:
    """Give a random network the weights it has with its own head: all but the head then depend on the seed alone.

    Many networks draw their head first, so another number of classes would change every layer, and cached features
    would serve one data set only.
    """
    if name.startswith(LOCAL_DIR):
        return
    torch.default_generator.manual_seed(seed)
    published = build_backbone(name, pretrained_config(name), classes=None, size=size).model.state_dict()
    mine = backbone.model.state_dict()
    same = {key: value for key, value in published.items() if key in mine and value.shape == mine[key].shape}
    backbone.model.load_state_dict(same, strict=False)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from the CPU's generator, seeded, and give its state back after."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def list_backbones(pattern: str | None = None) -> list[BackboneListing]:
    """The backbones whose name contains `pattern` (or matches it, with * and ?), ours first.

    Parameters are counted for up to 100 of them.
    """
    pattern = (pattern or "*").lower()
    pattern = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    names = [name for name in [*NON_TIMM, *timm.list_models()] if fnmatch.fnmatch(name.lower(), pattern)]
    return [_listing(name, count=len(names) <= COUNTED) for name in names]


def _listing(name: str, *, count: bool) -> BackboneListing:
    config = pretrained_config(name)
    local = hub.cached_weights(config) is not None
    local = local or (name == bundled_weights.NAME and bundled_weights.weights_file() is not None)
    parameters = None
    if count:
        with torch.device("meta"):
            parameters = sum(p.numel() for p in create_network(name, config, {}).parameters())
    size = tuple(config.get("input_size") or (3, 224, 224))[-1]
    return BackboneListing(name=name, parameters=parameters, input_size=size, local=local)
