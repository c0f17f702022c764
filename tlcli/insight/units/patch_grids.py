"""Draw the patches of a unit and their guided projections as two grids of 3 x 3 tiles.

Shapes: H x W pixels of the network's input with C channels; h x w positions of a map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from tlcli.images.batch import Floats, Pixels
from tlcli.insight.activation_taps import ActivationTap
from tlcli.insight.receptive_boxes import Box, ReceptiveBoxes
from tlcli.insight.units.top_activations import TOP_K
from tlcli.insight.units.top_patches import Patch, UnitPatches

TILE = 112
"""Side of a tile in pixels: a multiple of 8, so that no JPEG block spans two tiles."""
GRID_SIDE = round(TOP_K**0.5)
"""Tiles in a row of a grid."""

NEUTRAL = 128
HATCH, HATCH_BACKGROUND = (150, 150, 150), (176, 176, 176)
"""Colors of the hatching outside the image."""
HEAT_COLOR = (255, 92, 0)
NEAREST_FROM = 5
"""Enlargement from which pixels are shown as squares instead of being interpolated."""
CONTRAST_PERCENTILE = 99.0
"""Percentile of a projection's absolute values that is drawn at full contrast; larger values are clipped."""


@dataclass(frozen=True, kw_only=True)
class PatchGrids:
    """A unit's patches and projections, drawn."""

    stage: str | None
    """As in `ActivationTap`."""
    selectivity: float
    """Selectivity in standard deviations; NaN for a dead unit, whose grids are empty."""
    ranks: frozenset[int]
    """Ranks of the tiles that are filled, from 1."""
    patches: Image.Image
    """RGB, 3 x 3 tiles without gaps."""
    projections: Image.Image
    """The projections of the same tiles."""


def draw_patch_grids(unit: UnitPatches, tap: ActivationTap) -> PatchGrids:
    """Draw a unit's patches and, in the same order, their projections."""
    grids = [Image.new("RGB", (GRID_SIDE * TILE, GRID_SIDE * TILE), HATCH_BACKGROUND) for _ in range(2)]
    for patch in unit.patches:
        row, column = divmod(patch.rank - 1, GRID_SIDE)
        for grid, tile in zip(grids, (patch_tile(patch, tap.boxes), projection_tile(patch, tap.boxes)), strict=True):
            grid.paste(tile, (column * TILE, row * TILE))
    return PatchGrids(
        stage=tap.stage,
        selectivity=unit.selectivity,
        ranks=frozenset(patch.rank for patch in unit.patches),
        patches=grids[0],
        projections=grids[1],
    )


def patch_tile(patch: Patch, boxes: ReceptiveBoxes) -> Image.Image:
    """Draw what the strongest position sees, RGB, `TILE` x `TILE`; the area outside the image is hatched.

    If the position sees the whole image, draw the whole image: with the activation map as an overlay if the layer
    mixes all positions, otherwise with the position's cell outlined.
    """
    if not boxes.covers_input(patch.box):
        return _crop_tile(patch.pixels, patch.box)
    height, width = patch.pixels.shape[:2]
    tile = _crop_tile(patch.pixels, (0, 0, width, height))
    if boxes.mixes_positions:
        return _with_heat(tile, patch.heat)
    return _with_outline(tile, patch.cell, (width, height))


def projection_tile(patch: Patch, boxes: ReceptiveBoxes) -> Image.Image:
    """Draw the guided projection of the same box: gray pixels have no influence, others activate the unit."""
    height, width = patch.pixels.shape[:2]
    box = (0, 0, width, height) if boxes.covers_input(patch.box) else patch.box
    x0, y0, x1, y1 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    inside = np.abs(patch.projection[y0:y1, x0:x1])
    scale = float(np.percentile(inside, CONTRAST_PERCENTILE)) if inside.size else 0.0
    scale = scale or (float(inside.max()) if inside.size else 0.0)
    return _crop_tile(to_gray_centered(patch.projection, scale), box)


def to_gray_centered(values: Floats, scale: float) -> Pixels:
    """Convert values [..., C] to uint8: 0 becomes middle gray, `scale` white and -`scale` black."""
    shares = values / scale if scale > 0 else np.zeros_like(values)
    levels: Pixels = np.clip(NEUTRAL + 127 * shares, 0, 255).round().astype(np.uint8)
    return levels


def _crop_tile(pixels: Pixels, box: Box) -> Image.Image:
    """Crop a box from uint8 [H, W, C] and scale it to a tile; the area outside the image is hatched."""
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    tile = _hatched_tile()
    across, down = box[2] - box[0], box[3] - box[1]
    if x1 <= x0 or y1 <= y0:
        return tile
    # The longer side fills the tile.
    scale = TILE / max(across, down)
    left, top = (TILE - across * scale) / 2, (TILE - down * scale) / 2
    edges = [
        round(start + (edge - origin) * scale)
        for start, origin, edge in ((left, box[0], x0), (top, box[1], y0), (left, box[0], x1), (top, box[1], y1))
    ]
    size = (max(edges[2] - edges[0], 1), max(edges[3] - edges[1], 1))
    method = Image.Resampling.NEAREST if scale >= NEAREST_FROM else Image.Resampling.BICUBIC
    tile.paste(Image.fromarray(pixels[y0:y1, x0:x1]).resize(size, method), (edges[0], edges[1]))
    return tile


def _hatched_tile() -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), HATCH_BACKGROUND)
    pen = ImageDraw.Draw(tile)
    for start in range(-TILE, TILE, 8):
        pen.line((start, TILE, start + TILE, 0), fill=HATCH, width=2)
    return tile


def _with_outline(tile: Image.Image, cell: Box | None, size: tuple[int, int]) -> Image.Image:
    if cell is None:
        return tile
    scale = TILE / max(size)
    left, top = (TILE - size[0] * scale) / 2, (TILE - size[1] * scale) / 2
    x0, y0, x1, y1 = (round((left, top)[i % 2] + edge * scale) for i, edge in enumerate(cell))
    pen = ImageDraw.Draw(tile)
    pen.rectangle((x0 - 1, y0 - 1, x1, y1), outline=(255, 255, 255), width=1)
    pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=HEAT_COLOR, width=2)
    return tile


def _with_heat(tile: Image.Image, heat: Floats) -> Image.Image:
    """Darken the tile where the unit is inactive, and color it where it is active."""
    least = max(float(heat.min()), 0.0) if heat.max() > 0 else float(heat.min())
    span = float(heat.max()) - least
    shares = np.clip((heat - least) / span, 0, 1) if span > 0 else np.zeros_like(heat)
    resized = Image.fromarray(shares.astype(np.float32)).resize(tile.size, Image.Resampling.BICUBIC)
    share = np.clip(np.asarray(resized), 0, 1)[:, :, None]
    warm = np.asarray(tile) * (0.55 + 0.45 * share) * (1 - 0.4 * share) + np.array(HEAT_COLOR) * 0.4 * share
    return Image.fromarray(np.clip(warm, 0, 255).round().astype(np.uint8))
