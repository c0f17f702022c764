"""Read weights from a file without executing code, and compare them with a network key by key before loading."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tlcli.errors import ArtifactError, DataError

MAX_KEYS_SHOWN = 5
"""Number of keys of each kind that a message lists."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors file or a PyTorch file (.pth, .pt, .bin), without executing code.

    Training checkpoints that hold the weights under a key such as `state_dict` or `model` are accepted, and so are
    names that start with `module.`.

    Raises:
        DataError: There is no such file.
        ArtifactError: It is not a weights file, loading it could execute code, or its tensors are sparse, complex or
            without values.
    """
    if not path.is_file():
        raise DataError(f"There is no weights file {path}.", path=path)
    try:
        if path.suffix == ".safetensors":
            return _plain(load_file(path, device="cpu"), path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol of files that are rejected anyway
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"{path} was refused: it holds more than plain tensors, and loading it could execute code. "
            "Save the network's state_dict(), preferably as .safetensors, and use that file.",
            path=path,
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, UnicodeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ArtifactError(
            f"{path} is not a readable weights file ({reason}). Expected .safetensors, .pth or .pt.",
            path=path,
        ) from error
    return _plain(_tensors_of(loaded, path), path)


def _tensors_of(loaded: object, path: Path) -> dict[str, Tensor]:
    """Return the state dict of a checkpoint."""
    for key in ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise ArtifactError(f"{path} holds no state dict. Expected a mapping of names to tensors.", path=path)
    other = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if other:
        raise ArtifactError(
            f"{path} holds values that are not tensors: {', '.join(other[:MAX_KEYS_SHOWN])}. Expected a state dict.",
            path=path,
        )
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def _plain(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the state dict, or raise an `ArtifactError` if a tensor cannot be copied into a network."""
    unsupported = [f"{key} ({reason})" for key, tensor in state.items() if (reason := _unsupported(tensor))]
    if unsupported:
        raise ArtifactError(
            f"{path} holds {len(unsupported):,} unsupported tensors: {', '.join(unsupported[:MAX_KEYS_SHOWN])}. "
            "Expected dense tensors of real numbers.",
            path=path,
        )
    return state


def _unsupported(tensor: Tensor) -> str:
    """Return why a tensor cannot be copied into a network, or an empty string."""
    if tensor.is_meta:
        return "without values, on meta"
    if tensor.layout is not torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    return "complex" if tensor.is_complex() else ""


def check_dtypes(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Reject integers in place of floating-point weights (as in a quantized network) and vice versa.

    Copying would cast them silently.

    Args:
        model: The network to fill.
        state: Tensors by name.
        path: The file of `state`, for messages.

    Raises:
        ArtifactError: The message lists the first few keys.
    """
    other = [
        f"{key} {str(state[key].dtype).removeprefix('torch.')} instead of {str(own.dtype).removeprefix('torch.')}"
        for key, own in model.state_dict().items()
        if key in state and state[key].is_floating_point() != own.is_floating_point()
    ]
    if other:
        raise ArtifactError(
            f"{path} does not fit {type(model).__name__}: {len(other):,} tensors with another type "
            f"({', '.join(other[:MAX_KEYS_SHOWN])}).",
            path=path,
        )


def load_matching_state(model: nn.Module, state: Mapping[str, Tensor], heads: Collection[str], path: Path) -> None:
    """Load a state dict with the network's own keys; leave the head unchanged if its size differs.

    Args:
        model: The network to fill.
        state: Tensors by name.
        heads: Names of the modules whose tensors may be missing or of another size.
        path: The file of `state`, for messages.

    Raises:
        ArtifactError: There is any other difference; the message lists the first few keys, and the network is
            unchanged.
    """
    own = model.state_dict()
    head_keys = {key for key in own if key.rpartition(".")[0] in heads}
    usable = {k: v for k, v in state.items() if k not in head_keys or own[k].shape == v.shape}
    if any(key not in usable for key in head_keys):  # load the head whole or not at all
        usable = {key: value for key, value in usable.items() if key not in head_keys}
    differences = key_differences(own, {**{key: own[key] for key in head_keys}, **usable})
    if differences:
        raise ArtifactError(f"{path} does not fit {type(model).__name__}: {differences}", path=path)
    model.load_state_dict(usable, strict=False)


def key_differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Describe why a strict load would fail, with the first few keys of each kind; empty if it would succeed."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    shapes = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    parts = [
        f"{len(keys):,} {what} ({', '.join(keys[:MAX_KEYS_SHOWN])}{', ...' if len(keys) > MAX_KEYS_SHOWN else ''})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("with another shape", shapes))
        if keys
    ]
    return "; ".join(parts) + ("." if parts else "")
