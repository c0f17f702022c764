"""The outline of a pretrained network: what a command needs to know of it while nothing has to run it.

It is valid for the file that the weights were read from. Importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcli.backbones.input_spec import InputSpec
from tlcli.errors import ArtifactError
from tlcli.storage.files import sha256_file

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A pretrained network that is frozen up to its head."""

    origin: str
    """Where the weights came from, for messages and the report."""
    input: InputSpec
    arguments: dict[str, Any]
    """Arguments of timm.create_model; see `Backbone`."""
    description: dict[str, Any]
    """config.json without classes, from `config_file.describe_network`."""
    layers: int
    layer_name: str
    """Name of the last layer."""
    features: int
    """Number of features before the head."""
    digest: str
    """The digest of the frozen weights that enters the fingerprint of their features."""
    tensors_digest: str
    """The digest of the frozen tensors, by which `verify` knows them."""
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

    def verify(self, frozen: Mapping[str, Tensor]) -> None:
        """Check that these are the frozen tensors, by name.

        Raises:
            ArtifactError: They are not: the weights file was changed after `is_current`.
        """
        if tensors_digest(frozen) != self.tensors_digest:
            raise ArtifactError(
                f"{self.source} changed while the command was running. Repeat the command.", path=Path(self.source)
            )

    def state_dict(self, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """Return the state dict of the network with a head, of float [k, D] and [k]; twins are equal.

        Raises:
            DataError: The weights file was removed.
            ArtifactError: It cannot be read, or was changed.
        """
        from tlcli.backbones.weights_file import read_state_dict

        stored = read_state_dict(Path(self.source))
        state = {name: stored[own] for name, own in self.tensors.items() if own in stored}
        self.verify(state)
        for head, shape in self.heads.items():
            state |= {f"{head}.weight": weight.float().reshape(-1, *shape), f"{head}.bias": bias.float()}
        return state


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the names, dtypes, shapes and values of tensors, in hexadecimal."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
