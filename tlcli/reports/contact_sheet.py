"""Draw a contact sheet: some original images, each next to its first views and their augmentation parameters."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain, islice, zip_longest

from PIL import Image, ImageDraw, ImageFont

from tlcli.datasets.dataset import Dataset, Sample
from tlcli.datasets.splits import uniform_hash
from tlcli.errors import DataError
from tlcli.images.augment import draw_parameters
from tlcli.images.intensity import IntensityRange
from tlcli.images.loader import ImageLoader
from tlcli.images.preprocess import display_preprocessing
from tlcli.images.worker import DecodeOptions
from tlcli.settings.augmentation import Augmentation
from tlcli.storage.files import portable_name

ROWS = 5
"""Images on the sheet."""
VIEWS = 5
"""Views of each image."""
TILE, GAP, MARGIN = 180, 12, 20
"""Pixels: side of an image, space between two images, and margin of the sheet."""
LINE = 16
"""Line height of captions in pixels."""

BACKGROUND, INK, PALE = (255, 255, 255), (30, 30, 30), (120, 120, 120)
PADDING = 0.95
"""Gray level of the padding around images that are not square."""

Cell = tuple[Image.Image, list[str]]
"""An image and the lines of its caption."""


def contact_sheet(
    dataset: Dataset, augmentation: Augmentation, *, seed: int, workers: int, intensity: IntensityRange | None = None
) -> Image.Image:
    """Draw `ROWS` training images, from as many classes as possible, each with its views 1 to `VIEWS`.

    Args:
        dataset: The images to choose from.
        augmentation: The augmentation that makes the views.
        seed: Seed of the views and of the selection of images.
        workers: Number of decoder processes.
        intensity: Levels that become black and white in gray images of more than 8 bits.

    Raises:
        DataError: none of the images tried is readable.
    """
    candidates = list(islice(_candidates(dataset, seed), 4 * ROWS))
    options = DecodeOptions(
        preprocessing=display_preprocessing(TILE, background=PADDING, intensity=intensity),
        augmentation=augmentation,
        seed=seed,
    )
    with ImageLoader(options, workers=workers) as loader:
        rows = list(islice(_sheet_rows(loader, dataset, candidates, options), ROWS))
    if not rows:
        raise DataError(
            f"--preview: none of the {len(candidates)} images of {dataset.root} that were tried can be read.",
            path=dataset.root,
        )
    return _draw_sheet(f"{dataset.root.name or dataset.root}: {augmentation.describe()}, seed {seed}", rows)


def _candidates(dataset: Dataset, seed: int) -> Iterator[Sample]:
    """Yield training images in seeded random order: one of each class, then a second one of each, and so on."""

    def shuffled(sample: Sample) -> float:
        return uniform_hash(seed, os.path.relpath(sample.path, dataset.root))

    training = sorted((sample for sample in dataset.samples if sample.split in {None, "train"}), key=shuffled)
    by_class: dict[int, list[Sample]] = {}
    for sample in training:
        by_class.setdefault(sample.label, []).append(sample)
    # The order of classes is random, too: classes appear in the order of the shuffled images.
    return (sample for turn in zip_longest(*by_class.values()) for sample in turn if sample is not None)


def _sheet_rows(
    loader: ImageLoader, dataset: Dataset, candidates: Sequence[Sample], options: DecodeOptions
) -> Iterator[list[Cell]]:
    """Yield a row of cells for each readable candidate: the original, then its views."""
    images = loader.load_views((sample.path, view) for sample in candidates for view in range(VIEWS + 1))
    for sample in candidates:
        cells: list[Cell] = []
        for view, image in enumerate(islice(images, VIEWS + 1)):
            if image.pixels is None or image.digest is None or options.augmentation is None:
                continue
            parameters = draw_parameters(options.augmentation, seed=options.seed, view=view, digest=image.digest)
            lines = parameters.describe().split(", ")
            if view == 0:
                lines = [dataset.classes[sample.label], portable_name(os.path.basename(sample.path))]  # noqa: PTH119
            cells.append((Image.frombytes("RGB", (TILE, TILE), image.pixels), _wrap(lines, together=view > 0)))
        if len(cells) == VIEWS + 1:
            yield cells


def _wrap(parts: Sequence[str], *, together: bool) -> list[str]:
    """Wrap a caption to the width of an image: several parts per line if `together`, otherwise one per line."""
    font = ImageFont.load_default(12)
    lines: list[str] = []
    for part in parts:
        if together and lines and font.getlength(f"{lines[-1]}, {part}") <= TILE:
            lines[-1] += f", {part}"
            continue
        shown = part
        while font.getlength(shown) > TILE:
            shown = f"{shown[:-4]}..."
        lines.append(shown)
    return lines


def _draw_sheet(title: str, rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """Draw the title, a heading for each column, and the rows."""
    heights = [TILE + 8 + LINE * max(len(lines) for _, lines in row) + GAP for row in rows]
    top = MARGIN + 60
    size = (2 * MARGIN + (VIEWS + 1) * TILE + VIEWS * GAP, top + sum(heights) + MARGIN - GAP)
    sheet = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, INK, ImageFont.load_default(20))
    lefts = [MARGIN + column * (TILE + GAP) for column in range(VIEWS + 1)]
    for left, heading in zip(lefts, chain(["original"], (f"view {view + 1}" for view in range(VIEWS))), strict=True):
        pen.text((left, top - 22), heading, PALE, ImageFont.load_default(13))
    font = ImageFont.load_default(12)
    for row, height in zip(rows, heights, strict=True):
        for left, (image, lines) in zip(lefts, row, strict=True):
            sheet.paste(image, (left, top))
            for number, line in enumerate(lines):
                color = PALE if number and left == MARGIN else INK
                pen.text((left, top + TILE + 6 + number * LINE), line, color, font)
        top += height
    return sheet
