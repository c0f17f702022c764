"""Write settings as a command line."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

from tlcli.settings.augmentation import PRESETS, Augmentation
from tlcli.settings.common_options import AUTO
from tlcli.settings.finetune import FinetuneSettings
from tlcli.settings.options import DeclaredOption, own_options
from tlcli.settings.recorded import absolute_source
from tlcli.storage.files import portable_name
from tlcli.storage.urls import Url, absolute

OMITTED_FIELDS = {"data", "out", "overwrite", "resume", "verify", "track"}
"""Fields that do not change how a run is trained, and `data`, which is written first."""


def finetune_command(settings: FinetuneSettings) -> str:
    """Return the shell command that trains the same run: `tlcli finetune DATA` and the non-default options.

    Where the run is written, and what it replaces, is left out.
    """
    words = ["tlcli", "finetune", portable_name(absolute(settings.data))]
    shared = (settings.filters, settings.columns, settings.network, settings.training, settings.compute, settings.cache)
    for group in (settings, *shared):
        words += _options(group)
    if settings.augmentation is not None:
        words += _augmentation(settings.augmentation)
    return shlex.join(words)


def _options(settings: object) -> list[str]:
    words: list[str] = []
    for declared in own_options(type(settings)):
        value = getattr(settings, declared.name)
        if declared.name not in OMITTED_FIELDS and value != declared.default:
            words += _option(declared, value)
    return words


def _option(declared: DeclaredOption, value: object) -> list[str]:
    flag = declared.flag.partition("/")[0]
    match value:
        case bool():
            return [flag]
        case tuple() if declared.name in {"include", "exclude"}:
            return [f"{flag}={pattern}" for pattern in value]  # a pattern may start with a dash
        case tuple() if declared.name in {"rename", "class_weight"}:
            return [word for text in value for word in (flag, text)]
        case tuple():
            return [flag, ",".join(map(str, value))]
        case str() if declared.name == "unlabeled":
            return [flag, absolute_source(value)]
        case Path() | Url():
            return [flag, portable_name(absolute(value))]
        case _:
            return [flag, str(value)]


def _augmentation(chosen: Augmentation | Literal["auto"]) -> list[str]:
    if chosen == AUTO:
        return ["--augment", AUTO]
    for name, preset in PRESETS.items():
        if chosen == preset:
            return ["--augment", name]
    return ["--augment", "none", *_options(chosen)]
