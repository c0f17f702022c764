"""What `tlcli augment` makes a dataset from: recorded first, and compared before the dataset is continued."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tlcli.datasets.augmented_dataset import AugmentedImage
from tlcli.errors import ArtifactError, UsageError
from tlcli.settings import AugmentSettings
from tlcli.storage.files import canonical_json, portable_name, read_sealed, sealed, write_json

SIGNATURE_FILE = "augment.json"
"""Written first: the settings and images that the dataset is made from."""

FORMAT = 1
"""Version of `augment.json`."""

SIGNATURE_DESCRIPTION = "a dataset that tlcli augment started to write"


def check_out(out: Path, settings: AugmentSettings) -> None:
    """Check that a dataset can be written or continued, before anything is computed.

    Raises:
        UsageError: `out` is a file, or is not empty and `resume` is not set.
        ArtifactError: The dataset to continue was started with different settings.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; expected a new or empty folder.")
    if not out.is_dir() or all(
        path.name.endswith(".tmp") for path in out.glob("*")
    ):  # left by a process that was killed at its start
        return
    if not settings.resume:
        raise UsageError(f"--out {out} is not empty. Choose another folder, or pass --resume to continue.")
    found, current = (
        read_sealed(out / SIGNATURE_FILE, SIGNATURE_DESCRIPTION, form=FORMAT),
        _settings_signature(settings),
    )
    changed = [
        f"{name} was {found.get(name)!r} and is {current.get(name)!r}"
        for name in dict.fromkeys([*current, *found])
        if name != "images" and current.get(name) != found.get(name)
    ]
    if changed:
        raise ArtifactError(
            f"{out} was started with different settings: {'; '.join(changed)}. Repeat the command with the original "
            "settings, or choose another --out.",
            path=out,
        )


def signature_of(settings: AugmentSettings, outputs: Sequence[AugmentedImage]) -> dict[str, Any]:
    """Return all settings that determine what is written, and a digest of the images that are written."""
    listing = [(output.path, output.digest.hex(), output.view) for output in outputs]
    return _settings_signature(settings) | {"images": hashlib.sha256(canonical_json(listing)).hexdigest()}


def _settings_signature(settings: AugmentSettings) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "data": portable_name(str(settings.data.absolute())),
        "copies": settings.copies,
        "seed": settings.seed,
        "augmentation": settings.augmentation.to_json(),
    } | {
        name: value
        for name, value in (
            ("intensity", settings.intensity),
            ("include", list(settings.filters.include)),
            ("exclude", list(settings.filters.exclude)),
            ("group_by", settings.group_by),
            ("corrections", settings.corrections and portable_name(str(settings.corrections.absolute()))),
            *asdict(settings.columns).items(),
        )
        if value
    }


def check_signature(out: Path, signature: dict[str, Any], settings: AugmentSettings) -> None:
    """Check that the dataset to continue is made from the same images, with the same splits.

    Raises:
        ArtifactError: It is not.
    """
    if read_sealed(out / SIGNATURE_FILE, SIGNATURE_DESCRIPTION, form=FORMAT) != signature:
        raise ArtifactError(
            f"{out} was started with different images or splits: {settings.data} or tlcli has changed since. Choose "
            "another --out.",
            path=out,
        )


def record_signature(out: Path, signature: dict[str, Any], settings: AugmentSettings) -> None:
    """Write the signature of a new dataset, or check that of one to continue.

    Raises:
        ArtifactError: The dataset to continue is made from other images.
    """
    if (out / SIGNATURE_FILE).exists():
        check_signature(out, signature, settings)
    else:
        write_json(out / SIGNATURE_FILE, sealed(signature))
