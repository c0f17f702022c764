"""The provenance of a run: settings, data, and package versions, for `run.json`. Torch-free."""

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
    """Return the settings that determine the result of a run; output paths and hardware settings are left out."""
    network = asdict(settings.network)
    tails = {} if settings.network.freeze == "all" else {"batch_size": settings.compute.batch_size}
    augmentation = settings.augmentation
    return {
        "data": portable_name(str(settings.data.absolute())),
        "include": list(settings.filters.include),
        "exclude": list(settings.filters.exclude),
        "group_by": settings.group_by,
        **asdict(settings.columns),
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
    """Hash a set of images, independent of their order, names, and labels; images without a digest are left out."""
    return hashlib.sha256(b"".join(sorted(digest for digest in digests if digest))).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    return {"tlcli": tlcli.__version__, "python": platform.python_version()} | {
        name: version(name) for name in PACKAGES
    }
