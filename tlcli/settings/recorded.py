"""The settings of a run, as `run.json` records them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tlcli.settings.augmentation import Augmentation
from tlcli.settings.finetune import FinetuneSettings
from tlcli.storage.files import from_portable_name, portable_name
from tlcli.storage.urls import absolute


def settings_to_json(settings: FinetuneSettings) -> dict[str, Any]:
    """Return the settings that determine the result of a run; output paths and hardware settings are left out."""
    network = asdict(settings.network) | {"fit": settings.wanted_fit}
    tails = {} if settings.network.freeze == "all" else {"batch_size": settings.compute.batch_size}
    augmentation, corrections = settings.augmentation, settings.corrections
    return {
        "data": portable_name(str(settings.data.absolute())),
        "include": list(settings.filters.include) or None,
        "exclude": list(settings.filters.exclude) or None,
        "corrections": None if corrections is None else portable_name(str(corrections.absolute())),
        "unlabeled": None if settings.unlabeled is None else absolute_source(settings.unlabeled),
        "group_by": settings.group_by,
        **asdict(settings.columns),
        "validation_fraction": settings.validation_fraction,
        "budget": settings.budget,
        "balance": settings.balance,
        "class_weight": list(settings.class_weight) or None,
        "rename": list(settings.rename) or None,
        **network,
        **asdict(settings.training),
        **tails,
        "augmentation": augmentation.to_json() if isinstance(augmentation, Augmentation) else augmentation,
        "precision": settings.compute.precision,
        "engine": settings.compute.engine,
    }


def absolute_source(source: str) -> str:
    """Return a SOURCE of images, which may be an `@list` or a URL, so that it means the same in every folder."""
    at = "@" if source.startswith("@") else ""
    return at + portable_name(absolute(from_portable_name(source.removeprefix(at))))
