"""Where a run came from: its settings, its data and the versions it was made with, for `run.json`. Torch-free."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import tlcli
from tlcli.settings import FinetuneSettings
from tlcli.storage.files import portable_name

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "pyarrow")


def settings_to_json(settings: FinetuneSettings) -> dict[str, Any]:
    """What decides the result of a run: every setting but where it is written and what it may replace."""
    network = asdict(settings.network)
    tails = {} if settings.network.freeze == "all" else {"batch_size": settings.compute.batch_size}
    augmentation = settings.augmentation
    return {
        "data": portable_name(str(settings.data.absolute())),
        "group_by": settings.group_by,
        "validation_fraction": settings.validation_fraction,
        "balance": settings.balance,
        **network,
        **asdict(settings.training),
        **tails,
        "augmentation": None if augmentation is None else augmentation.to_json(),
        "precision": settings.compute.precision,
        "engine": settings.compute.engine,
    }


def data_fingerprint(digests: Iterable[bytes | None]) -> str:
    """One hash of a set of images, whatever their order, names and labels."""
    return hashlib.sha256(b"".join(sorted(digest for digest in digests if digest))).hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    return {"tlcli": tlcli.__version__, "python": platform.python_version()} | {
        name: version(name) for name in PACKAGES
    }
