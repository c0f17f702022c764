"""Check the values of `run.json`. Checksums detect damage; this detects files that tlcli never wrote. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from tlcli.errors import ArtifactError
from tlcli.images.preprocess import RESAMPLING
from tlcli.runs.directory import CONFIG_FILE, FILES, SPLITS_FILE, WEIGHTS_FILE
from tlcli.settings import FITS

MAX_INPUT_SIZE = 2**14
"""Largest side of a network's input, in pixels."""

Info = dict[str, Any]


def _is_number(value: object, low: float = -math.inf) -> bool:
    """Return whether a value is a finite number above `low`."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low < value < math.inf


def _is_integer(value: object, low: int, high: int) -> bool:
    """Return whether a value is an integer in [low, high]."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_preprocessing_valid(info: Info) -> bool:
    values, channels = info["preprocessing"], info["preprocessing"]["channels"]
    low, high = values.get("intensity") or (0, 1)
    known = {"height", "width", "channels", "fit", "crop_fraction", "interpolation", "mean", "std", "intensity"}
    return (
        set(values) <= known
        and all(_is_integer(values[side], 1, MAX_INPUT_SIZE) for side in ("height", "width"))
        and _is_integer(channels, 1, 3)
        and channels != 2
        and values["fit"] in FITS
        and values["interpolation"] in RESAMPLING
        and _is_number(values["crop_fraction"], 0)
        and values["crop_fraction"] <= 1
        and len(values["mean"]) == len(values["std"]) == channels
        and all(_is_number(value) for value in values["mean"])
        and all(_is_number(value, 0) for value in values["std"])
        and all(_is_number(value) for value in (low, high))
        and low < high
    )


def _are_files_valid(info: Info) -> bool:
    files = info["files"]
    return {WEIGHTS_FILE, CONFIG_FILE, SPLITS_FILE} <= set(files) <= set(FILES) and all(
        isinstance(digest, str) for digest in files.values()
    )


def _is_freeze_valid(freeze: Info) -> bool:
    return _is_integer(freeze["of"], 1, 10_000) and _is_integer(freeze["layer"], 0, freeze["of"])


def _are_parents_valid(info: Info) -> bool:
    return all(
        _is_freeze_valid(parent["freeze"])
        and all(isinstance(value, str) for value in (parent["path"], parent["location"], parent["sha256"]))
        and isinstance(parent["freeze"]["name"], str)
        for parent in info.get("parents", [])
    )


CHECKS: dict[str, Callable[[Info], bool]] = {
    "created": lambda info: datetime.fromisoformat(info["created"]).timestamp() > 0,
    "classes": lambda info: (
        isinstance(info["classes"], list)
        and 2 <= len(info["classes"]) == len(set(info["classes"]))
        and all(isinstance(name, str) for name in info["classes"])
    ),
    "preprocessing": _is_preprocessing_valid,
    "files": _are_files_valid,
    "temperature": lambda info: _is_number(info["temperature"], 0),
    "log_prior": lambda info: (
        info["log_prior"] is None
        or (len(info["log_prior"]) == len(info["classes"]) and all(_is_number(value) for value in info["log_prior"]))
    ),
    "freeze": lambda info: _is_freeze_valid(info["freeze"]),
    "precision": lambda info: info["precision"] in {"fp32", "fp16", "bf16"},
    "backbone": lambda info: isinstance(info["backbone"], str),
    "settings": lambda info: isinstance(info["settings"], dict),
    "parents": _are_parents_valid,
}
"""The check of each key. A check that raises has failed."""


def check_info(info: Info, path: Path) -> None:
    """Check that tlcli can have written the content of a `run.json`.

    Args:
        info: The content of a `run.json`.
        path: The file, for messages.

    Raises:
        ArtifactError: A key is missing or its value is invalid; the message names the first one.
    """
    for key, check in CHECKS.items():
        try:
            valid = check(info)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
            valid = False
        if not valid:
            raise ArtifactError(
                f"{path}: the value of {key} is invalid (found {str(info.get(key))[:60]!r}). Train again.",
                path=path,
            )
