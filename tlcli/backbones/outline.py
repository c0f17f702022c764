"""The outline of a pretrained network: what a command needs to know of it while nothing has to run it.

It is made from the built network, and is valid for the file that the weights were read from. Importing this module does
not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcli.backbones.backbone import Backbone, Cut, InputSpec
from tlcli.backbones.config_file import describe_network
from tlcli.errors import TlcliError
from tlcli.storage.files import sha256_file

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A pretrained network that is frozen up to its head."""

    origin: str
    """Where the weights came from, for messages and the report."""
    input: InputSpec
    arguments: dict[str, Any]
    """Arguments of timm.create_model; see `Backbone`."""
    description: dict[str, Any]
    """config.json without classes, from `timm_config.describe_network`."""
    layers: int
    layer_name: str
    """Name of the last layer."""
    features: int
    """Number of features before the head."""
    digest: str
    """The digest of the frozen weights that enters the fingerprint of their features."""
    heads: dict[str, list[int]]
    """The shape of one class's weights, by the name of the head: [D] or [D, 1, 1]."""
    source: str
    """Path of the file that holds the frozen weights."""
    source_sha256: str
    tensors: dict[str, str]
    """The name that each frozen tensor has in that file, by its name in the network."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Outline:
        """Invert `to_json`."""
        spec = content["input"]
        restored = InputSpec(**spec | {"mean": tuple(spec["mean"]), "std": tuple(spec["std"])})
        return cls(**content | {"input": restored})

    def is_current(self) -> bool:
        """Return whether the weights file is still there, and unchanged."""
        path = Path(self.source)
        return path.is_file() and sha256_file(path) == self.source_sha256

    def backbone(self, name: str, build: Callable[[], nn.Module]) -> Backbone:
        """Return the network, which calls `build` when its modules are needed."""
        return Backbone(
            name=name,
            build=build,
            input=self.input,
            origin=self.origin,
            arguments=self.arguments,
            outline=self,
        )

    def cut(self, cut_network: Callable[[], Cut]) -> Cut:
        """Return the cut before the head, which calls `cut_network` when its pieces are needed."""

        def split() -> tuple[nn.Module, nn.Module]:
            cut = cut_network()
            return cut.prefix, cut.tail

        return Cut(split=split, layer=self.layers, name=self.layer_name, of=self.layers, feature_shape=(self.features,))

    def state_dict(self, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """Return the state dict of the network with a head, of float [k, D] and [k]; twins are equal.

        Raises:
            DataError: The weights file was removed.
            ArtifactError: It cannot be read.
        """
        from tlcli.backbones.weights_file import read_state_dict

        stored = read_state_dict(Path(self.source))
        state = {name: stored[own] for name, own in self.tensors.items()}
        for head, shape in self.heads.items():
            state |= {f"{head}.weight": weight.float().reshape(-1, *shape), f"{head}.bias": bias.float()}
        return state


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
    if hasattr(model, "aux_head") or any(f"{name}.bias" not in state for name in names):
        return None
    frozen = {name: tensor for name, tensor in state.items() if name.rpartition(".")[0] not in names}
    try:
        tensors = _names_in_file(frozen, read_state_dict(request.source), list(state))
    except TlcliError:  # a file that only timm can read
        return None
    if tensors is None:
        return None
    return Outline(
        origin=backbone.origin,
        input=backbone.input,
        arguments=backbone.arguments,
        description=describe_network(backbone),
        layers=cut.of,
        layer_name=cut.name,
        features=cut.feature_shape[0],
        digest=digest,
        heads={name: list(state[f"{name}.weight"].shape[1:]) for name in names},
        source=str(request.source.absolute()),
        source_sha256=sha256_file(request.source),
        tensors=tensors,
    )


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
