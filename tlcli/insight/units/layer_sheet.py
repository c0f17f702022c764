"""Draw one PNG per layer: for each unit, the grid of its patches and the grid of their projections side by side.

A layer that was trained shows both grids before fine-tuning on the left and both after it on the right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw, ImageFont

from tlcli.insight.activation_taps import ActivationTap
from tlcli.insight.units.patch_grids import GRID_SIDE, TILE, PatchGrids

PANELS_PER_ROW = 3
"""Units in a row; one fewer if units are shown before and after fine-tuning."""
MARGIN, GAP, TILE_GAP = 28, 26, 3
"""Pixels around the sheet, between two panels, and between two tiles."""
GRID_GAP = 10
"""Pixels between the two grids of a panel."""
TITLE, CAPTION = 74, 26
"""Height in pixels of the title and of a unit's caption."""
GRID = GRID_SIDE * TILE + (GRID_SIDE - 1) * TILE_GAP
PANEL = 2 * GRID + GRID_GAP
"""Width in pixels of a panel: a unit's two grids."""

BACKGROUND, INK, PALE = (255, 255, 255), (28, 28, 30), (120, 120, 124)


def layer_title(tap: ActivationTap) -> str:
    """Return the layer's number and name."""
    return f"Layer {tap.layer.number}   {tap.layer.name}"


def layer_facts(tap: ActivationTap) -> str:
    """Describe a layer in one line: its kind, shape, receptive field and total stride."""
    height, width = tap.boxes.input_size
    field = tap.boxes.field
    rows, columns = tap.layout.map_size
    shape = f"{tap.layout.units} units" + (f" x {rows} x {columns} positions" if (rows, columns) != (1, 1) else "")
    if field is None:
        sees, stride = "receptive field: the whole image", ""
    else:
        down, across = (int(high - low) + 1 for low, high in zip(field.low, field.high, strict=True))
        whole = ", the whole image" if down >= height and across >= width else ""
        sees = f"receptive field {down} x {across} px{whole}"
        stride = f", stride {field.jump[0]:g}"
    return f"{tap.layer.kind}, {shape}, {sees}{stride}"


def selectivity_caption(grids: PatchGrids) -> str:
    """Return a caption with the selectivity of a unit, and the stage it was measured at."""
    score = grids.selectivity
    text = "dead: same activation for every image" if math.isnan(score) else f"{score:.1f} sd above its mean"
    return f"{grids.stage} fine-tuning: {text}" if grids.stage else text


class LayerSheet:
    """The PNG of a layer; units are added one by one.

    Args:
        tap: The layer whose units are drawn.
        count: Number of units that will be added.
        panels: Panels per unit: 2 if it is shown before and after fine-tuning, otherwise 1.
    """

    def __init__(self, tap: ActivationTap, count: int, panels: int) -> None:
        self._columns = PANELS_PER_ROW if panels == 1 else PANELS_PER_ROW - 1
        rows = max(1, -(-count // self._columns))
        self._cell = (panels * (PANEL + GAP) - GAP, CAPTION + GRID)
        self._gap = panels * GAP
        width = 2 * MARGIN + self._columns * (self._cell[0] + self._gap) - self._gap
        self.image = Image.new("RGB", (width, MARGIN + TITLE + rows * (self._cell[1] + GAP) - GAP + MARGIN), BACKGROUND)
        pen = ImageDraw.Draw(self.image)
        pen.text((MARGIN, MARGIN), layer_title(tap), INK, ImageFont.load_default(26))
        pen.text((MARGIN, MARGIN + 36), layer_facts(tap), PALE, ImageFont.load_default(16))
        self._pasted = 0

    def add(self, number: int, panels: Sequence[PatchGrids]) -> None:
        """Draw the next unit.

        Args:
            number: Index of the unit in its layer.
            panels: Its grids, before fine-tuning first.
        """
        row, column = divmod(self._pasted, self._columns)
        left = MARGIN + column * (self._cell[0] + self._gap)
        top = MARGIN + TITLE + row * (self._cell[1] + GAP)
        pen, font = ImageDraw.Draw(self.image), ImageFont.load_default(14)
        pen.text((left, top), f"unit {number}", INK, ImageFont.load_default(17))
        for grids in panels:
            text = selectivity_caption(grids)
            pen.text((left + PANEL - font.getlength(text), top + 2), text, PALE, font)
            self._paste(grids.patches, left, top + CAPTION, grids.ranks)
            self._paste(grids.projections, left + GRID + GRID_GAP, top + CAPTION, grids.ranks)
            left += PANEL + GAP
        self._pasted += 1

    def _paste(self, grid: Image.Image, left: int, top: int, ranks: Iterable[int]) -> None:
        """Paste the tiles of a grid with gaps between them."""
        for rank in ranks:
            row, column = divmod(rank - 1, GRID_SIDE)
            tile = grid.crop((column * TILE, row * TILE, (column + 1) * TILE, (row + 1) * TILE))
            self.image.paste(tile, (left + column * (TILE + TILE_GAP), top + row * (TILE + TILE_GAP)))
