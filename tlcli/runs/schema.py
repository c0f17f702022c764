"""What `run.json` must say for a run to be used. Its checksum tells damage; this tells what was never a run of ours.

Torch-free.
"""

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

LARGEST_INPUT = 2**14
"""Side of a network's input, in pixels."""

Info = dict[str, Any]


def _number(value: object, low: float = -math.inf) -> bool:
    """Whether it is a finite number above `low`."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low < value < math.inf


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _preprocessing(info: Info) -> bool:
    asked, channels = info["preprocessing"], info["preprocessing"]["channels"]
    low, high = asked.get("intensity") or (0, 1)
    known = {"height", "width", "channels", "fit", "crop_fraction", "interpolation", "mean", "std", "intensity"}
    return (
        set(asked) <= known
        and all(_whole(asked[side], 1, LARGEST_INPUT) for side in ("height", "width"))
        and _whole(channels, 1, 3)
        and channels != 2
        and asked["fit"] in FITS
        and asked["interpolation"] in RESAMPLING
        and _number(asked["crop_fraction"], 0)
        and asked["crop_fraction"] <= 1
        and len(asked["mean"]) == len(asked["std"]) == channels
        and all(_number(value) for value in asked["mean"])
        and all(_number(value, 0) for value in asked["std"])
        and all(_number(value) for value in (low, high))
        and low < high
    )


def _files(info: Info) -> bool:
    files = info["files"]
    return {WEIGHTS_FILE, CONFIG_FILE, SPLITS_FILE} <= set(files) <= set(FILES) and all(
        isinstance(digest, str) for digest in files.values()
    )


CHECKS: dict[str, Callable[[Info], bool]] = {
    "created": lambda info: datetime.fromisoformat(info["created"]).timestamp() > 0,
    "classes": lambda info: (
        isinstance(info["classes"], list)
        and 2 <= len(info["classes"]) == len(set(info["classes"]))
        and all(isinstance(name, str) for name in info["classes"])
    ),
    "preprocessing": _preprocessing,
    "files": _files,
    "temperature": lambda info: _number(info["temperature"], 0),
    "log_prior": lambda info: (
        info["log_prior"] is None
        or (len(info["log_prior"]) == len(info["classes"]) and all(_number(value) for value in info["log_prior"]))
    ),
    "freeze": lambda info: (
        _whole(info["freeze"]["of"], 1, 10_000) and _whole(info["freeze"]["layer"], 0, info["freeze"]["of"])
    ),
    "precision": lambda info: info["precision"] in {"fp32", "fp16", "bf16"},
    "backbone": lambda info: isinstance(info["backbone"], str),
    "settings": lambda info: isinstance(info["settings"], dict),
}
"""What must hold, by the key that it is about. Raising is as bad as False."""


def check_info(info: Info, path: Path) -> None:
    """Refuse a `run.json` that tlcli can't have written.

    Raises:
        ArtifactError: naming the first key that is missing or odd.
    """
    for key, holds in CHECKS.items():
        try:
            good = holds(info)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
            good = False
        if not good:
            raise ArtifactError(
                f"{path} has no {key} that tlcli could have written (found {str(info.get(key))[:60]!r}). Train again.",
                path=path,
            )
