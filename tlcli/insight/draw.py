"""Patches, projections and filters as images.

H x W pixels of the network's input with C channels; h x w places of a map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import nn

from tlcli.insight.patches import Patch, Unit
from tlcli.insight.receptive_boxes import Box, Sight
from tlcli.insight.top_activations import KEPT
from tlcli.insight.units import Tap

TILE = 112
"""Pixels along a drawn patch's side: a multiple of 8, so that JPEG's blocks don't run from one into the next."""
SIDE = round(KEPT**0.5)
"""Patches in a row of a grid."""

NEUTRAL = 128
HATCH, HATCHED = (150, 150, 150), (176, 176, 176)
"""Stripes and ground of what lies beside the image."""
HOT = (255, 92, 0)
SHARP_FROM = 5
"""Enlarged so many times, pixels are shown as the squares they are."""
BRIGHTEST = 99.0
"""Percentile of a projection's values that becomes full contrast; the few above are cut."""

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What one network's unit looks for, drawn."""

    stage: str | None
    """as in `Tap`"""
    selectivity: float
    """NaN where the unit answers every image alike: then nothing is drawn."""
    ranks: frozenset[int]
    """Tiles that there are, from 1."""
    patches: Image.Image
    """RGB, 3 x 3 tiles without gaps."""
    projections: Image.Image
    """The same tiles' projections."""


def draw_panel(unit: Unit, tap: Tap) -> Panel:
    """A unit's patches and, place by place, their projections."""
    grids = [Image.new("RGB", (SIDE * TILE, SIDE * TILE), HATCHED) for _ in range(2)]
    for patch in unit.patches:
        row, column = divmod(patch.rank - 1, SIDE)
        for grid, tile in zip(grids, (patch_tile(patch, tap.sight), projection_tile(patch, tap.sight)), strict=True):
            grid.paste(tile, (column * TILE, row * TILE))
    return Panel(
        stage=tap.stage,
        selectivity=unit.selectivity,
        ranks=frozenset(patch.rank for patch in unit.patches),
        patches=grids[0],
        projections=grids[1],
    )


def patch_tile(patch: Patch, sight: Sight) -> Image.Image:
    """What the place that fired sees, RGB, `TILE` x `TILE`; hatched where that lies beside the image.

    Where it sees the whole image, the whole image: with the activation map on top where the network mixes all
    places, else with the hot region outlined.
    """
    if not sight.covers(patch.box):
        return _cut(patch.pixels, patch.box)
    height, width = patch.pixels.shape[:2]
    tile = _cut(patch.pixels, (0, 0, width, height))
    if sight.field is None and sight.places != (1, 1):
        return _heated(tile, patch.heat)
    return _outlined(tile, patch.cell, (width, height))


def projection_tile(patch: Patch, sight: Sight) -> Image.Image:
    """The guided projection in the same box: gray is no influence, colors are what excites the unit."""
    height, width = patch.pixels.shape[:2]
    box = (0, 0, width, height) if sight.covers(patch.box) else patch.box
    x0, y0, x1, y1 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    inside = np.abs(patch.projection[y0:y1, x0:x1])
    scale = float(np.percentile(inside, BRIGHTEST)) if inside.size else 0.0
    scale = scale or (float(inside.max()) if inside.size else 0.0)
    return _cut(as_gray_centered(patch.projection, scale), box)


def as_gray_centered(values: Floats, scale: float) -> Pixels:
    """Values [..., C] to uint8: 0 is middle gray, `scale` white, -`scale` black."""
    shares = values / scale if scale > 0 else np.zeros_like(values)
    levels: Pixels = np.clip(NEUTRAL + 127 * shares, 0, 255).round().astype(np.uint8)
    return levels


def _cut(pixels: Pixels, box: Box) -> Image.Image:
    """A box of uint8 [H, W, C] enlarged to a tile; what lies outside is hatched."""
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    tile = _hatching()
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
    method = Image.Resampling.NEAREST if scale >= SHARP_FROM else Image.Resampling.BICUBIC
    tile.paste(Image.fromarray(pixels[y0:y1, x0:x1]).resize(size, method), (edges[0], edges[1]))
    return tile


def _hatching() -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), HATCHED)
    pen = ImageDraw.Draw(tile)
    for start in range(-TILE, TILE, 8):
        pen.line((start, TILE, start + TILE, 0), fill=HATCH, width=2)
    return tile


def _outlined(tile: Image.Image, cell: Box | None, size: tuple[int, int]) -> Image.Image:
    if cell is None:
        return tile
    scale = TILE / max(size)
    left, top = (TILE - size[0] * scale) / 2, (TILE - size[1] * scale) / 2
    x0, y0, x1, y1 = (round((left, top)[i % 2] + edge * scale) for i, edge in enumerate(cell))
    pen = ImageDraw.Draw(tile)
    pen.rectangle((x0 - 1, y0 - 1, x1, y1), outline=(255, 255, 255), width=1)
    pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=HOT, width=2)
    return tile


def _heated(tile: Image.Image, heat: Floats) -> Image.Image:
    """The image dark where the unit is quiet, and warm where it fires."""
    least = max(float(heat.min()), 0.0) if heat.max() > 0 else float(heat.min())
    span = float(heat.max()) - least
    shares = np.clip((heat - least) / span, 0, 1) if span > 0 else np.zeros_like(heat)
    resized = Image.fromarray(shares.astype(np.float32)).resize(tile.size, Image.Resampling.BICUBIC)
    share = np.clip(np.asarray(resized), 0, 1)[:, :, None]
    warm = np.asarray(tile) * (0.55 + 0.45 * share) * (1 - 0.4 * share) + np.array(HOT) * 0.4 * share
    return Image.fromarray(np.clip(warm, 0, 255).round().astype(np.uint8))


def first_filters(model: nn.Module, channels: int) -> Floats | None:
    """The filters of the network's first convolution, float32 [U, h, w, C]; None where it has none to be seen."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.in_channels != channels or first.groups != 1 or channels not in {1, 3}:
        return None
    filters: Floats = first.weight.detach().to(torch.float32).permute(0, 2, 3, 1).cpu().numpy()
    return filters


def filter_sheet(filters: Floats) -> Image.Image:
    """Every filter as it is, in order of its number: gray is 0, each at full contrast of its own. RGBA."""
    count, height, width = filters.shape[:3]
    enlarge = max(1, round((48 if count <= 64 else 32) / max(height, width)))
    gap = 4
    columns = min(count, 16 if count <= 128 else 32)
    step = (width * enlarge + gap, height * enlarge + gap)
    rows = -(-count // columns)
    sheet = Image.new("RGBA", (columns * step[0] - gap, rows * step[1] - gap), (0, 0, 0, 0))
    for number, one in enumerate(filters):
        levels = as_gray_centered(one, float(np.abs(one).max()))
        tile = Image.fromarray(np.repeat(levels, 3, axis=2) if levels.shape[2] == 1 else levels)
        row, column = divmod(number, columns)
        enlarged = tile.resize((width * enlarge, height * enlarge), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (column * step[0], row * step[1]))
    return sheet
