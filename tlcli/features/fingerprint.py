"""The fingerprint: a hash of everything that a feature depends on besides the image's bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tlcli.backbones.outline import tensors_digest
from tlcli.images.preprocess import Preprocessing
from tlcli.storage.files import canonical_json

if TYPE_CHECKING:
    from torch import nn

FORMAT = 4
"""Version of the cache layout, and of the pixels that preprocessing produces."""


def ingredients(
    *, backbone: str, weights: str, layer: int, layer_name: str, preprocessing: Preprocessing, numerics: str
) -> dict[str, Any]:
    """Return everything that a feature depends on, as stored in `cache.json`.

    Args:
        backbone: Name of the architecture.
        weights: `weights_digest` of the prefix.
        layer: Number of the last frozen layer.
        layer_name: Name of that layer.
        preprocessing: How images enter the network.
        numerics: Precision of the prefix, such as `fp32`.
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
    """Return the hash of `ingredients`, 32 hexadecimal digits: the name of the store's directory."""
    return hashlib.sha256(canonical_json(content)).hexdigest()[:32]


def weights_digest(prefix: nn.Module, heads: Iterable[nn.Module] = ()) -> str:
    """Return the SHA-256 of names, dtypes, shapes and values of a prefix's parameters and buffers, in hexadecimal.

    Heads are left out: a prefix that cannot be traced still contains them, unused.
    """
    unused = {tensor.data_ptr() for head in heads for tensor in head.state_dict().values()}
    return tensors_digest({name: t for name, t in prefix.state_dict().items() if t.data_ptr() not in unused})


def differences(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of ingredients in which two stores differ, such as `weights` or `preprocessing.fit`."""
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
