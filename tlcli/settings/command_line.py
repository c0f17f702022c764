"""The command that says what settings say."""

from __future__ import annotations

import dataclasses
import os
import shlex

from tlcli.settings.augmentation import PRESETS, Augmentation
from tlcli.settings.commands import FinetuneSettings
from tlcli.storage.files import portable_name
from tlcli.storage.urls import absolute


def finetune_command(settings: FinetuneSettings) -> str:
    """`tlcli finetune DATA ...`, for a shell, with all that isn't as it is by itself; but not where the run goes."""
    words = ["tlcli", "finetune", portable_name(absolute(settings.data))]
    for group in (settings, settings.network, settings.training, settings.compute, settings.cache):
        for field in dataclasses.fields(group):
            value = getattr(group, field.name)
            if isinstance(value, (bool, int, float, str)) and value != field.default:
                words += _option(field.name, value)
    if settings.cache.directory is not None:
        words += ["--cache", portable_name(os.path.abspath(settings.cache.directory))]  # noqa: PTH100
    if settings.augmentation is not None:
        words += _augmentation(settings.augmentation)
    return shlex.join(words)


def _option(name: str, value: float | str) -> list[str]:
    """One setting, as the command line says it."""
    match name:
        case "overwrite" | "resume" | "verify":
            return []
        case "enabled":
            return ["--no-cache"]
        case _:
            flag = "--" + name.replace("_", "-")
            return [flag] if value is True else [flag, str(value)]


def _augmentation(chosen: Augmentation) -> list[str]:
    for name, preset in PRESETS.items():
        if chosen == preset:
            return ["--augment", name]
    words = ["--augment", "none"]
    for name, value in dataclasses.asdict(chosen).items():
        if value != getattr(Augmentation(), name):
            said = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += _option(name, value if isinstance(value, bool) else said)
    return words
