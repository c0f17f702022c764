"""A PNG for each layer: its units, each with the grid of its patches beside that of their projections."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from tlcli.inspection.draw import SIDE, TILE
from tlcli.inspection.units import Tap
from tlcli.inspection.winners import Unit

COLUMNS = 3
"""Units in a row."""
MARGIN, GAP, SLIT = 28, 26, 3
"""Pixels: around all, between two units, and between two patches."""
BETWEEN = 10
"""Pixels between a unit's two grids."""
HEAD, CAPTION = 74, 26
"""Pixels that the title and a unit's caption take."""
GRID = SIDE * TILE + (SIDE - 1) * SLIT

GROUND, INK, PALE = (255, 255, 255), (28, 28, 30), (120, 120, 124)


def title(tap: Tap) -> str:
    """The layer in one line: its number, name, shape, receptive field and total stride."""
    return f"Layer {tap.layer.number}   {tap.layer.name}"


def facts(tap: Tap) -> str:
    """Kind, shape, receptive field and total stride of a layer, for people."""
    height, width = tap.sight.picture
    field = tap.sight.field
    places = tap.layout.places
    shape = f"{tap.layout.units} units" + (f" x {places[0]} x {places[1]} places" if places != (1, 1) else "")
    if field is None:
        sees, steps = "sees the whole picture", ""
    else:
        down, across = (int(high - low) + 1 for low, high in zip(field.low, field.high, strict=True))
        whole = ", the whole picture" if down >= height and across >= width else ""
        sees = f"receptive field {down} x {across} px{whole}"
        steps = f", stride {field.jump[0]:g}"
    return f"{tap.layer.kind}, {shape}, {sees}{steps}"


class Sheet:
    """Filled unit by unit.

    Args:
        tap: The layer.
        count: How many units will come.
    """

    def __init__(self, tap: Tap, count: int) -> None:
        rows = max(1, -(-count // COLUMNS))
        self._cell = (2 * GRID + BETWEEN, CAPTION + GRID)
        width = 2 * MARGIN + COLUMNS * self._cell[0] + (COLUMNS - 1) * GAP
        self.picture = Image.new("RGB", (width, MARGIN + HEAD + rows * (self._cell[1] + GAP) - GAP + MARGIN), GROUND)
        pen = ImageDraw.Draw(self.picture)
        pen.text((MARGIN, MARGIN), title(tap), INK, _font(26))
        pen.text((MARGIN, MARGIN + 36), facts(tap), PALE, _font(16))
        self._pasted = 0

    def add(self, unit: Unit, patches: Image.Image, projections: Image.Image) -> None:
        """Draw the next unit."""
        row, column = divmod(self._pasted, COLUMNS)
        left = MARGIN + column * (self._cell[0] + GAP)
        top = MARGIN + HEAD + row * (self._cell[1] + GAP)
        pen = ImageDraw.Draw(self.picture)
        pen.text((left, top), f"unit {unit.number}", INK, _font(17))
        text = f"{unit.selectivity:.1f} sd above its mean"
        pen.text((left + self._cell[0] - _font(14).getlength(text), top + 2), text, PALE, _font(14))
        for index, grid in enumerate((patches, projections)):
            self._spread(grid, left + index * (GRID + BETWEEN), top + CAPTION, {patch.rank for patch in unit.patches})
        self._pasted += 1

    def _spread(self, grid: Image.Image, left: int, top: int, ranks: set[int]) -> None:
        """Paste the tiles of a grid with slits between them."""
        for rank in ranks:
            row, column = divmod(rank - 1, SIDE)
            tile = grid.crop((column * TILE, row * TILE, (column + 1) * TILE, (row + 1) * TILE))
            self.picture.paste(tile, (left + column * (TILE + SLIT), top + row * (TILE + SLIT)))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
