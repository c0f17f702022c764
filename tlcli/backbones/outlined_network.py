"""From a built network to its outline, and from the outline to a network that is built when needed.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tlcli.backbones.backbone import Backbone, Cut
from tlcli.backbones.config_file import describe_network
from tlcli.backbones.outline import Outline, tensors_digest
from tlcli.errors import TlcliError
from tlcli.storage.files import sha256_file

if TYPE_CHECKING:
    from torch import Tensor, nn


def outlined_backbone(outline: Outline, name: str, build: Callable[[], nn.Module]) -> Backbone:
    """Return the network of an outline, which calls `build` when its modules are needed, and verifies the weights."""

    def verified() -> nn.Module:
        model = build()
        outline.verify(_frozen_tensors(model))
        return model

    return Backbone(
        name=name,
        build=verified,
        input=outline.input,
        origin=outline.origin,
        arguments=outline.arguments,
        outline=outline,
    )


def outlined_cut(outline: Outline, cut_network: Callable[[], Cut]) -> Cut:
    """Return the cut before the head, which calls `cut_network` when its pieces are needed."""

    def split() -> tuple[nn.Module, nn.Module]:
        cut = cut_network()
        return cut.prefix, cut.tail

    return Cut(
        split=split,
        layer=outline.layers,
        name=outline.layer_name,
        of=outline.layers,
        feature_shape=(outline.features,),
    )


def make_outline(backbone: Backbone, cut: Cut, digest: str) -> Outline | None:
    """Return the outline of a built network.

    Args:
        backbone: The network, with pretrained weights.
        cut: Its cut before the head.
        digest: The digest of the weights of the cut's prefix.

    Returns:
        None if the network has other trainable parts than linear heads with a bias, or its other tensors are not those
        of a file on this machine.
    """
    from tlcli.backbones.heads import head_names
    from tlcli.backbones.weights_file import read_state_dict

    request = backbone.request
    if request is None or request.source is None:
        return None
    model = backbone.model
    names, state = head_names(model), model.state_dict()
    frozen = _frozen_tensors(model)
    head_tensors = {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
    if hasattr(model, "aux_head") or state.keys() - frozen.keys() != head_tensors:
        return None
    try:
        tensors = _names_in_file(frozen, read_state_dict(request.source), list(state))
    except TlcliError:  # a file that only timm can read
        return None
    if tensors is None:
        return None
    return Outline(
        origin=backbone.origin.replace("(hub)", "(local)"),  # by now, the file is on this machine
        input=backbone.input,
        arguments=backbone.arguments,
        description=describe_network(backbone),
        layers=cut.of,
        layer_name=cut.name,
        features=cut.feature_shape[0],
        digest=digest,
        tensors_digest=tensors_digest(frozen),
        heads={name: list(state[f"{name}.weight"].shape[1:]) for name in names},
        source=str(request.source.absolute()),
        source_sha256=sha256_file(request.source),
        tensors=tensors,
    )


def _frozen_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors outside of the heads, by name."""
    from tlcli.backbones.heads import head_names

    heads = head_names(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name.rpartition(".")[0] not in heads}


def _names_in_file(frozen: dict[str, Tensor], stored: dict[str, Tensor], names: list[str]) -> dict[str, str] | None:
    """Return the name in the file of each frozen tensor: its own, or that at its position, as in a wheel.

    Args:
        frozen: The frozen tensors, by name.
        stored: The tensors of the file, by name.
        names: All names of the network, in its order.

    Returns:
        None if a tensor of the file is missing or differs, because timm converted the file.
    """
    found = dict(zip(names, stored, strict=True)) if len(names) == len(stored) else {}
    tensors = {name: name if name in stored else found.get(name, "") for name in frozen}
    for name, own in tensors.items():
        other, tensor = stored.get(own), frozen[name].cpu()
        if other is None or other.dtype != tensor.dtype or other.shape != tensor.shape or not other.equal(tensor):
            return None
    return tensors
