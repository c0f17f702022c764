"""Render the page of a comparison, with the images that only one of two runs predicts correctly. Self-contained."""

from __future__ import annotations

import base64
from typing import Any

from tlcli.datasets.class_names import in_reading_order
from tlcli.images.intensity import IntensityRange
from tlcli.inference.paired_comparison import ComparedRun, PairedImage, describe_result
from tlcli.progress import Reporter
from tlcli.reports.page import file_address, page_environment, read_asset
from tlcli.reports.sprite_sheet import draw_sprite_sheet
from tlcli.storage.files import portable_name

SHOWN = 500
"""Images shown per direction, at most."""


def compare_page(
    runs: tuple[ComparedRun, ComparedRun],
    *,
    split: str,
    metrics: dict[str, Any],
    flips: dict[str, list[PairedImage]],
    intensity: IntensityRange | None,
    workers: int,
    report: Reporter,
) -> str:
    """Render the page.

    Args:
        runs: A and B.
        split: The images that were compared.
        metrics: From `PairedComparison.result`.
        flips: From `PairedComparison.flips`.
        intensity: Levels that become black and white in gray images of more than 8 bits.
        workers: Number of decoder processes for the thumbnails.
        report: Receives the progress of the thumbnails.
    """
    sides = [flips["only_b"], flips["only_a"]]
    shown = [images[:SHOWN] for images in sides]
    paths = [image.path for images in shown for image in images]
    with report.task("Page", len(paths)) as advance:
        sheet = draw_sprite_sheet(paths, intensity=intensity, workers=workers, advance=advance)
    figures = [
        _figure(image, sheet.style(number, len(paths)))
        for number, image in enumerate(image for images in shown for image in images)
    ]
    return (
        page_environment()
        .get_template("compare.html")
        .render(
            runs=runs,
            split=split,
            metrics=metrics | {"per_class": in_reading_order(metrics["per_class"])},
            verdict=describe_result(metrics),
            sides=[
                {"name": "B", "other": "A", "count": len(sides[0]), "figures": figures[: len(shown[0])]},
                {"name": "A", "other": "B", "count": len(sides[1]), "figures": figures[len(shown[0]) :]},
            ],
            sheet=base64.b64encode(sheet.content).decode(),
            style=read_asset("run.css"),
        )
    )


def _figure(image: PairedImage, style: str) -> dict[str, Any]:
    """Return the template's values for an image; `wrong` is the prediction of the run that is wrong."""
    is_a_wrong = image.correct == (False, True)
    wrong, right = (0, 1) if is_a_wrong else (1, 0)
    return {
        "path": portable_name(image.path),
        "address": file_address(image.path),
        "label": image.label,
        "wrong": image.predicted[wrong],
        "confidence": (image.confidence[right], image.confidence[wrong]),
        "style": style,
    }
