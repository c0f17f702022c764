"""What a page shows of the images that judged a run: thumbnails, and a map of their features.

Shapes: N images, D the width of a feature.
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
from tlcli.reports.projection import project
from tlcli.reports.thumbnails import Sheet, draw_sheet, layout
from tlcli.storage.files import canonical_json, load_checksummed, save_checksummed


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Thumbnails of N images, and where each lies on the map."""

    sheet: Sheet
    places: npt.NDArray[np.float32]
    """[N, 2], in [0, 1]."""


def draw_overview(
    paths: Sequence[str],
    vectors: Callable[[], npt.NDArray[np.float32]],
    *,
    intensity: IntensityRange | None,
    workers: int,
    report: Reporter,
) -> Overview:
    """Draw thumbnails and the map.

    Args:
        paths: Of N images.
        vectors: Gives float32 [N, D], what the map is made of.
        intensity: What becomes black and white of gray with more than 8 bits.
        workers: Decoding processes.
        report: Shown the progress.
    """
    with report.task("Report", len(paths)) as advance:
        sheet = draw_sheet(paths, intensity=intensity, workers=workers, advance=advance)
        return Overview(sheet=sheet, places=project(vectors()))


def kept_overview(
    directory: Path,
    digests: Sequence[bytes],
    intensity: IntensityRange | None,
    draw: Callable[[], Overview],
    report: Reporter,
) -> Overview:
    """The overview of images that was drawn before, else a new one, which is kept.

    Args:
        directory: Of the features that the map is made of.
        digests: Of the N images, in order.
        intensity: As for `draw_overview`.
        draw: Draws it.
        report: Told of damage.
    """
    content = [[digest.hex() for digest in digests], intensity, layout(len(digests))]
    key = hashlib.sha256(canonical_json(content)).hexdigest()[:32]
    stem = f"overview-{key}"

    def damaged(path: Path) -> None:
        report.warn(f"{path} is damaged (its checksum differs); it is made again.")

    file = load_checksummed(directory, stem, ".safetensors", damaged)
    found = None if file is None else _load(file, len(digests))
    if found is None:
        found = draw()
        sheet = np.frombuffer(found.sheet.content, np.uint8)
        save_checksummed(
            directory, stem, ".safetensors", safetensors.numpy.save({"places": found.places, "sheet": sheet})
        )
    return found


def _load(file: bytes, count: int) -> Overview | None:
    """What `kept_overview` kept; None where it is of another make."""
    side, columns = layout(count)
    try:
        tensors = safetensors.numpy.load(file)
        places, sheet = tensors["places"], tensors["sheet"]
    except (safetensors.SafetensorError, KeyError, ValueError):
        return None
    if places.shape != (count, 2) or places.dtype != np.float32 or sheet.dtype != np.uint8:
        return None
    if not np.isfinite(places).all():
        return None
    return Overview(sheet=Sheet(content=sheet.tobytes(), side=side, columns=columns), places=places)
