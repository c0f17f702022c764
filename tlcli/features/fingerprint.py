"""What a feature depends on besides the image's bytes, and one hash of it all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tlcli.images.preprocess import Preprocessing
from tlcli.storage.files import canonical_json

if TYPE_CHECKING:
    from torch import nn

FORMAT = 3
"""Version of the cache's layout and of the pixels that preprocessing makes."""


def ingredients(
    *, backbone: str, weights: str, layer: int, layer_name: str, preprocessing: Preprocessing, numerics: str
) -> dict[str, Any]:
    """Everything a feature depends on, readable; goes into `cache.json`.

    Args:
        backbone: The architecture's name.
        weights: `weights_digest` of the prefix.
        layer: Number of the last frozen layer.
        layer_name: Its name.
        preprocessing: How images enter the network.
        numerics: The arithmetic that the prefix runs in, such as `fp32`.
    """
    return {
        "format": FORMAT,
        "backbone": backbone,
        "weights": weights,
        "cut": {"layer": layer, "name": layer_name},
        "preprocessing": preprocessing.to_json(),
        "numerics": numerics,
    }


def fingerprint(content: dict[str, Any]) -> str:
    """Hash of `ingredients`, 32 hexadecimal digits: the name of the cache's folder."""
    return hashlib.sha256(canonical_json(content)).hexdigest()[:32]


def weights_digest(prefix: nn.Module, heads: Iterable[nn.Module] = ()) -> str:
    """SHA-256 over names, types, shapes and values of a prefix's parameters and buffers, in hexadecimal.

    The heads are left out: where a network can't be traced, its prefix carries them along, unused.
    """
    import torch

    digest = hashlib.sha256()
    unused = {tensor.data_ptr() for head in heads for tensor in head.state_dict().values()}
    for name, tensor in sorted(prefix.state_dict().items()):
        if tensor.data_ptr() in unused:
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def differences(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of the ingredients in which two caches differ, such as `weights` or `preprocessing.fit`."""
    found = []
    for key in sorted(mine.keys() | other.keys()):
        one, two = mine.get(key), other.get(key)
        if one == two:
            continue
        if isinstance(one, dict) and isinstance(two, dict):
            found += [f"{key}.{inner}" for inner in differences(one, two)]
        else:
            found.append(key)
    return found
