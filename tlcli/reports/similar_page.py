"""Render the page of similar: each query beside its nearest images. Self-contained."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from tlcli.images.intensity import IntensityRange
from tlcli.inference.neighbor_rows import Answer
from tlcli.progress import Reporter
from tlcli.reports.page import file_address, page_environment, read_asset
from tlcli.reports.sprite_sheet import draw_sprite_sheet
from tlcli.storage.files import portable_name

THUMBNAILS = 4000
"""Thumbnails of a page, at most: the first queries are shown."""


def similar_page(
    answers: Sequence[Answer],
    *,
    network: str,
    data: str,
    intensity: IntensityRange | None,
    workers: int,
    report: Reporter,
) -> str:
    """Render the page.

    Args:
        answers: The queries and their nearest images.
        network: The run or backbone, as given by the user.
        data: Where the nearest images were searched, as given by the user.
        intensity: Levels that become black and white in gray images of more than 8 bits.
        workers: Number of decoder processes for the thumbnails.
        report: Receives the progress of the thumbnails.
    """
    shown = _first(answers)
    paths = list(dict.fromkeys(path for answer in shown for path in _images(answer)))
    with report.task("Page", len(paths)) as advance:
        sheet = draw_sprite_sheet(paths, intensity=intensity, workers=workers, advance=advance)
    numbers = {path: number for number, path in enumerate(paths)}

    def figure(path: str) -> dict[str, str | None]:
        style = sheet.style(numbers[path], len(paths)) if path in numbers else None
        return {"path": portable_name(path), "address": file_address(path), "style": style}

    return (
        page_environment()
        .get_template("similar.html")
        .render(
            network=portable_name(network),
            data=portable_name(data),
            queries=len(answers),
            answers=[
                {
                    "query": figure(answer.path),
                    "error": answer.error,
                    "neighbors": [
                        figure(found.path) | {"label": found.label, "similarity": f"{found.similarity:.3f}"}
                        for found in answer.neighbors
                    ],
                }
                for answer in shown
            ],
            sheet=base64.b64encode(sheet.content).decode(),
            style=read_asset("run.css"),
        )
    )


def _images(answer: Answer) -> list[str]:
    """Return the images of an answer that can be shown."""
    return [] if answer.error is not None else [answer.path, *(found.path for found in answer.neighbors)]


def _first(answers: Sequence[Answer]) -> Sequence[Answer]:
    """Return the first answers, at least one, with no more than `THUMBNAILS` images."""
    total = 0
    for number, answer in enumerate(answers):
        total += len(_images(answer))
        if total > THUMBNAILS and number:
            return answers[:number]
    return answers
