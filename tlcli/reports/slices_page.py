"""Render the page of an evaluation by slices, with the errors of the slices that are worse. Self-contained."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from tlcli.images.intensity import IntensityRange
from tlcli.inference.slices import EvaluatedImage
from tlcli.progress import Reporter
from tlcli.reports.page import file_address, page_environment, read_asset
from tlcli.reports.sprite_sheet import draw_sprite_sheet
from tlcli.storage.files import portable_name

SHOWN = 100
"""Errors shown for each slice, at most: the most confident ones."""


def slices_page(
    result: dict[str, Any],
    errors: Mapping[str, Sequence[EvaluatedImage]],
    *,
    intensity: IntensityRange | None,
    workers: int,
    report: Reporter,
) -> str:
    """Render the page.

    Args:
        result: What `evaluate` returns, with slices.
        errors: The images of each marked slice that are predicted incorrectly, by the name of the slice.
        intensity: Levels that become black and white in gray images of more than 8 bits.
        workers: Number of decoder processes for the thumbnails.
        report: Receives the progress of the thumbnails.
    """
    shown = {
        name: sorted(images, key=lambda image: -image.confidence)[:SHOWN] for name, images in errors.items() if images
    }
    paths = [image.path for images in shown.values() for image in images]
    with report.task("Page", len(paths)) as advance:
        sheet = draw_sprite_sheet(paths, intensity=intensity, workers=workers, advance=advance)
    numbers = iter(range(len(paths)))
    sections = [
        {
            "name": name,
            "count": len(errors[name]),
            "figures": [
                {
                    "path": portable_name(image.path),
                    "address": file_address(image.path),
                    "label": image.label,
                    "predicted": image.predicted,
                    "confidence": image.confidence,
                    "style": sheet.style(next(numbers), len(paths)),
                }
                for image in images
            ],
        }
        for name, images in shown.items()
    ]
    return (
        page_environment()
        .get_template("slices.html")
        .render(
            result=result,
            sections=sections,
            sheet=base64.b64encode(sheet.content).decode(),
            style=read_asset("run.css"),
        )
    )
