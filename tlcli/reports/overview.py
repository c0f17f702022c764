"""Make thumbnails of the evaluated images and a map of their features, and cache both next to the features.

Shapes: N images, D the length of a feature vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from tlcli.images.intensity import IntensityRange
from tlcli.progress import Reporter
from tlcli.reports.projection import project_to_map
from tlcli.reports.sprite_sheet import SpriteSheet, draw_sprite_sheet, sprite_layout
from tlcli.storage.files import canonical_json, load_checksummed, save_checksummed


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Thumbnails of N images, and their positions on the map."""

    sheet: SpriteSheet
    positions: npt.NDArray[np.float32]
    """[N, 2], in [0, 1]."""


def draw_overview(
    paths: Sequence[str],
    vectors: Callable[[], npt.NDArray[np.float32]],
    *,
    intensity: IntensityRange | None,
    workers: int,
    report: Reporter,
) -> Overview:
    """Draw the thumbnails and compute the map.

    Args:
        paths: Paths of N images.
        vectors: Returns the vectors to map, float32 [N, D].
        intensity: Levels that become black and white in gray images of more than 8 bits.
        workers: Number of decoder processes.
        report: Receives the progress over the images.
    """
    with report.task("Report", len(paths)) as advance:
        sheet = draw_sprite_sheet(paths, intensity=intensity, workers=workers, advance=advance)
        return Overview(sheet=sheet, positions=project_to_map(vectors()))


def cached_overview(
    directory: Path,
    digests: Sequence[bytes],
    intensity: IntensityRange | None,
    draw: Callable[[], Overview],
    report: Reporter,
) -> Overview:
    """Return the cached overview of these images; draw and cache it if there is none.

    Args:
        directory: The cache directory of the features that the map is made of.
        digests: Digests of the N images, in order.
        intensity: As for `draw_overview`.
        draw: Draws the overview if none is cached.
        report: Receives a warning if the cached file is damaged.
    """
    content = [[digest.hex() for digest in digests], intensity, sprite_layout(len(digests))]
    key = hashlib.sha256(canonical_json(content)).hexdigest()[:32]
    stem = f"overview-{key}"

    def damaged(path: Path) -> None:
        report.warn(f"{path} is damaged (checksum mismatch); recreating it.")

    file = load_checksummed(directory, stem, ".safetensors", damaged)
    found = None if file is None else _load_overview(file, len(digests))
    if found is None:
        found = draw()
        sheet = np.frombuffer(found.sheet.content, np.uint8)
        save_checksummed(
            directory, stem, ".safetensors", safetensors.numpy.save({"places": found.positions, "sheet": sheet})
        )
    return found


def _load_overview(file: bytes, count: int) -> Overview | None:
    """Load a cached overview; None if its contents are not as expected."""
    side, columns = sprite_layout(count)
    try:
        tensors = safetensors.numpy.load(file)
        positions, sheet = tensors["places"], tensors["sheet"]
    except (safetensors.SafetensorError, KeyError, ValueError):
        return None
    if positions.shape != (count, 2) or positions.dtype != np.float32 or sheet.dtype != np.uint8:
        return None
    if not np.isfinite(positions).all():
        return None
    return Overview(sheet=SpriteSheet(content=sheet.tobytes(), side=side, columns=columns), positions=positions)
