"""A PNG for each layer: its units, each with the grid of its patches beside that of their projections.

Of a layer that was trained, both grids before fine-tuning, and to their right both after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw, ImageFont

from tlcli.insight.draw import SIDE, TILE, Panel
from tlcli.insight.units import Tap

COLUMNS = 3
"""Units in a row; 2 where each has two panels."""
MARGIN, GAP, SLIT = 28, 26, 3
"""Pixels: around all, between two panels, and between two patches."""
BETWEEN = 10
"""Pixels between a unit's two grids."""
HEAD, CAPTION = 74, 26
"""Pixels that the title and a unit's caption take."""
GRID = SIDE * TILE + (SIDE - 1) * SLIT
PANEL = 2 * GRID + BETWEEN

GROUND, INK, PALE = (255, 255, 255), (28, 28, 30), (120, 120, 124)


def title(tap: Tap) -> str:
    """The layer in one line: its number, name, shape, receptive field and total stride."""
    return f"Layer {tap.layer.number}   {tap.layer.name}"


def facts(tap: Tap) -> str:
    """Kind, shape, receptive field and total stride of a layer, for people."""
    height, width = tap.sight.image
    field = tap.sight.field
    places = tap.layout.places
    shape = f"{tap.layout.units} units" + (f" x {places[0]} x {places[1]} places" if places != (1, 1) else "")
    if field is None:
        sees, steps = "sees the whole image", ""
    else:
        down, across = (int(high - low) + 1 for low, high in zip(field.low, field.high, strict=True))
        whole = ", the whole image" if down >= height and across >= width else ""
        sees = f"receptive field {down} x {across} px{whole}"
        steps = f", stride {field.jump[0]:g}"
    return f"{tap.layer.kind}, {shape}, {sees}{steps}"


def caption(panel: Panel) -> str:
    """How far a unit's top images lie above its mean, and when."""
    score = panel.selectivity
    text = "answers every image alike" if math.isnan(score) else f"{score:.1f} sd above its mean"
    return f"{panel.stage} fine-tuning: {text}" if panel.stage else text


class Sheet:
    """Filled unit by unit.

    Args:
        tap: The layer.
        count: How many units will come.
        panels: How many each of them has.
    """

    def __init__(self, tap: Tap, count: int, panels: int) -> None:
        self._columns = COLUMNS if panels == 1 else COLUMNS - 1
        rows = max(1, -(-count // self._columns))
        self._cell = (panels * (PANEL + GAP) - GAP, CAPTION + GRID)
        self._gap = panels * GAP
        width = 2 * MARGIN + self._columns * (self._cell[0] + self._gap) - self._gap
        self.image = Image.new("RGB", (width, MARGIN + HEAD + rows * (self._cell[1] + GAP) - GAP + MARGIN), GROUND)
        pen = ImageDraw.Draw(self.image)
        pen.text((MARGIN, MARGIN), title(tap), INK, _font(26))
        pen.text((MARGIN, MARGIN + 36), facts(tap), PALE, _font(16))
        self._pasted = 0

    def add(self, number: int, panels: Sequence[Panel]) -> None:
        """Draw the next unit."""
        row, column = divmod(self._pasted, self._columns)
        left = MARGIN + column * (self._cell[0] + self._gap)
        top = MARGIN + HEAD + row * (self._cell[1] + GAP)
        pen = ImageDraw.Draw(self.image)
        pen.text((left, top), f"unit {number}", INK, _font(17))
        for panel in panels:
            text = caption(panel)
            pen.text((left + PANEL - _font(14).getlength(text), top + 2), text, PALE, _font(14))
            self._spread(panel.patches, left, top + CAPTION, panel.ranks)
            self._spread(panel.projections, left + GRID + BETWEEN, top + CAPTION, panel.ranks)
            left += PANEL + GAP
        self._pasted += 1

    def _spread(self, grid: Image.Image, left: int, top: int, ranks: Iterable[int]) -> None:
        """Paste the tiles of a grid with slits between them."""
        for rank in ranks:
            row, column = divmod(rank - 1, SIDE)
            tile = grid.crop((column * TILE, row * TILE, (column + 1) * TILE, (row + 1) * TILE))
            self.image.paste(tile, (left + column * (TILE + SLIT), top + row * (TILE + SLIT)))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
