"""Weights from a file the user names: read without running code, compared key by key before anything is changed."""

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

SHOWN = 5  # how many keys of each kind a message lists


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file, or from a PyTorch file (.pth, .pt, .bin) without running code.

    A training checkpoint that keeps the weights under `state_dict`, `model` or the like is fine, and so are
    names that begin with `module.`.

    Raises:
        DataError: There is no such file.
        ArtifactError: It is not a weights file, or one that wants to run code, or its tensors are sparse, complex or
            without values.
    """
    if not path.is_file():
        raise DataError(f"There is no weights file {path}.", path=path)
    try:
        if path.suffix == ".safetensors":
            return _plain(load_file(path, device="cpu"), path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol of files that are then refused
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"{path} holds more than plain tensors, and loading it could run code; refused. "
            "Save the network's state_dict(), best as .safetensors, and give that.",
            path=path,
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, UnicodeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ArtifactError(
            f"{path} is not a weights file that can be read ({reason}). Expected .safetensors, .pth or .pt.",
            path=path,
        ) from error
    return _plain(_tensors_of(loaded, path), path)


def _tensors_of(loaded: object, path: Path) -> dict[str, Tensor]:
    """The state dict within a checkpoint."""
    for key in ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise ArtifactError(f"{path} holds no state dict (a mapping of names to tensors).", path=path)
    strangers = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ArtifactError(
            f"{path} holds values that are no tensors: {', '.join(strangers[:SHOWN])}. Expected a state dict.",
            path=path,
        )
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def _plain(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The state dict, if all its tensors can be copied into a network."""
    odd = [f"{key} ({what})" for key, tensor in state.items() if (what := _oddity(tensor))]
    if odd:
        raise ArtifactError(
            f"{path} holds {len(odd):,} tensors that no network takes: {', '.join(odd[:SHOWN])}. Expected dense "
            "tensors of real numbers.",
            path=path,
        )
    return state


def _oddity(tensor: Tensor) -> str:
    if tensor.is_meta:
        return "without values, on meta"
    if tensor.layout is not torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    return "complex" if tensor.is_complex() else ""


def check_kinds(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse whole numbers where the network has others, such as those of a quantized one, which copying would cast.

    Raises:
        ArtifactError: with the first few keys.
    """
    other = [
        f"{key} {str(state[key].dtype).removeprefix('torch.')} instead of {str(own.dtype).removeprefix('torch.')}"
        for key, own in model.state_dict().items()
        if key in state and state[key].is_floating_point() != own.is_floating_point()
    ]
    if other:
        raise ArtifactError(
            f"{path} does not fit {type(model).__name__}: {len(other):,} tensors of another kind "
            f"({', '.join(other[:SHOWN])}).",
            path=path,
        )


def load_matching_state(model: nn.Module, state: Mapping[str, Tensor], heads: Collection[str], path: Path) -> None:
    """Fill the network from a state dict of its own keys; a head of another size is left as it is.

    Args:
        model: The network to fill.
        state: Tensors by name.
        heads: Names of the modules that may be absent or of another size.
        path: Where the tensors came from, for messages.

    Raises:
        ArtifactError: Any other difference, with the first few keys; the network is unchanged.
    """
    own = model.state_dict()
    head_keys = {key for key in own if key.rpartition(".")[0] in heads}
    usable = {k: v for k, v in state.items() if k not in head_keys or own[k].shape == v.shape}
    if any(key not in usable for key in head_keys):  # half a head is no head
        usable = {key: value for key, value in usable.items() if key not in head_keys}
    differences = key_differences(own, {**{key: own[key] for key in head_keys}, **usable})
    if differences:
        raise ArtifactError(f"{path} does not fit {type(model).__name__}: {differences}", path=path)
    model.load_state_dict(usable, strict=False)


def key_differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What a strict load would complain about, the first few keys of each kind; empty when it would not."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    shapes = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    parts = [
        f"{len(keys):,} {what} ({', '.join(keys[:SHOWN])}{', ...' if len(keys) > SHOWN else ''})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    return "; ".join(parts) + ("." if parts else "")
