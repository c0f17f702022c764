"""The stores in a cache directory: list them, find the nearest one, check for free space."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from tlcli.errors import ArtifactError, MachineError
from tlcli.features.fingerprint import differences, fingerprint
from tlcli.storage.files import megabytes, read_json

KEPT_FILES = ("prefix-*.onnx", "overview-*.safetensors", "network-*.json")
"""What is kept beside features."""


@dataclass(frozen=True, kw_only=True)
class CacheListing:
    """One feature cache on disk."""

    directory: Path
    ingredients: dict[str, Any]
    feature_shape: tuple[int, ...]
    images: int
    bytes: int
    """Size on disk."""
    used: float
    """Time of last use, in seconds since 1970."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "directory": str(self.directory),
            "fingerprint": self.directory.name,
            "backbone": self.ingredients["backbone"],
            "ingredients": self.ingredients,
            "feature_shape": list(self.feature_shape),
            "images": self.images,
            "bytes": self.bytes,
            "used": datetime.fromtimestamp(self.used, UTC).isoformat(timespec="seconds"),
        }


def list_caches(root: Path) -> list[CacheListing]:
    """Return the feature caches in `root`, most recently used first. Other directories are ignored."""
    listings = []
    for header_path in root.glob("*/cache.json") if root.is_dir() else ():
        with contextlib.suppress(ArtifactError, KeyError, TypeError, FileNotFoundError):  # or it is being removed
            header = read_json(header_path, "a feature cache")
            content, shape = header["ingredients"], tuple(header["feature_shape"])
            if fingerprint(content) != header_path.parent.name:
                continue
            parts = list(header_path.parent.glob("part-*.arrow"))
            others = [path for kind in KEPT_FILES for path in header_path.parent.glob(kind)]
            listings.append(
                CacheListing(
                    directory=header_path.parent,
                    ingredients=content,
                    feature_shape=shape,
                    images=sum(_rows_in(path) for path in parts),
                    bytes=sum(path.stat().st_size for path in [*parts, *others]),
                    used=header_path.stat().st_mtime,
                )
            )
    return sorted(listings, key=lambda listing: -listing.used)


def _rows_in(path: Path) -> int:
    try:
        with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
            return sum(reader.get_batch(index).num_rows for index in range(reader.num_record_batches))
    except (pa.ArrowInvalid, OSError):
        return 0


def nearest_cache(root: Path, content: dict[str, Any]) -> tuple[CacheListing, list[str]] | None:
    """Return the existing cache that differs in the fewest ingredients, and their names."""
    others = [(listing, differences(content, listing.ingredients)) for listing in list_caches(root)]
    return min((pair for pair in others if pair[1]), key=lambda pair: len(pair[1]), default=None)


def check_space(root: Path, needed: int) -> None:
    """Check that the disk has room.

    Raises:
        MachineError: the disk has less than `needed` bytes free.
    """
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise MachineError(
            f"the features need {megabytes(needed)} in {root}, but {megabytes(free)} are free there. Make room "
            "(tlcli cache prune), use another --cache (or TLCLI_CACHE), or --no-cache.",
            path=root,
        )
