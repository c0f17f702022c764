"""Draw an explanation card: the image, the image with a heat map of the label's evidence, and the top classes.

Shapes: h x w positions of a heat map; panels of H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tlcli.images.batch import Floats
from tlcli.images.decode import Size
from tlcli.images.preprocess import Placement
from tlcli.images.text_drawing import draw_text, shorten_text, text_width

MAX_SIDE = 640
"""Maximum side of a panel in pixels."""
MAX_HEIGHT = 400
"""Maximum height of a panel in pixels if the two panels are side by side."""
STACK_FROM = 1.9
"""Ratio of width to height from which the two panels are stacked."""
MARGIN, GAP, LINE = 28, 20, 24
"""Pixels around the card, between panels, and per line of small text."""
COLUMN = 300
"""Width in pixels of the text column beside the panels."""

BACKGROUND, INK, PALE, FAINT = (255, 255, 255), (28, 28, 30), (110, 110, 116), (232, 232, 236)
LABEL_BAR, OTHER_BAR = (214, 84, 20), (150, 150, 158)
"""Colors of the label's bar and of the other classes' bars."""
EDGE = (255, 255, 255)

COLORMAP = np.array([(60, 8, 120), (150, 20, 130), (220, 60, 70), (250, 140, 20), (255, 235, 90)], np.float32)
"""Colors from low to high, in order of brightness, so that it is readable in grayscale, too."""
MAX_OPACITY = 0.72
"""Opacity of the heat map at its maximum."""
DIMMED = 0.38
"""Factor on the brightness of what the network did not see."""


def draw_card(
    name: str, image: Image.Image, placement: Placement, heat: Floats, ranking: Sequence[tuple[str, float]]
) -> Image.Image:
    """Draw a card.

    Args:
        name: Name of the image, for the heading.
        image: The whole image, RGB, upright, of any size.
        placement: Where the network's input lies in the image, in the pixels of its file.
        heat: float32 [h, w] over the network's input, non-negative.
        ranking: Classes and their confidences, the label first.
    """
    panel = panel_size(placement.size)
    plain = image.resize(panel, Image.Resampling.LANCZOS)
    warm = overlay(plain, placement, heat)
    stacked = placement.size[0] >= STACK_FROM * placement.size[1]
    across, down = (panel[0], 2 * panel[1] + GAP) if stacked else (2 * panel[0] + GAP, panel[1])
    notes = _notes(placement, heat, ranking[0][0])
    text_height = 52 * len(ranking) + 26 + LINE * (len(notes) + 1)
    top = MARGIN + 16 + GAP
    size = (2 * MARGIN + across + 2 * GAP + COLUMN, top + max(down, text_height) + MARGIN)
    sheet = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    draw_text(pen, (MARGIN, MARGIN + 12), shorten_text(name, 15, size[0] - 2 * MARGIN, front=True), PALE, 15)
    sheet.paste(plain, (MARGIN, top))
    sheet.paste(warm, (MARGIN, top + panel[1] + GAP) if stacked else (MARGIN + panel[0] + GAP, top))
    left = MARGIN + across + 2 * GAP
    _draw_classes(pen, (left, top), ranking)
    _draw_legend(sheet, (left, top + 52 * len(ranking) + 26), notes)
    return sheet


def panel_size(size: Size) -> Size:
    """Return the width and height of the panel for an upright image of `size`."""
    limit = (MAX_SIDE, MAX_SIDE) if size[0] >= STACK_FROM * size[1] else (MAX_SIDE, MAX_HEIGHT)
    scale = min(limit[0] / size[0], limit[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def overlay(panel: Image.Image, placement: Placement, heat: Floats) -> Image.Image:
    """Overlay an image with a heat map, and darken the parts that the network did not see.

    Args:
        panel: The whole image, RGB.
        placement: Where the network's input lies in the image, in the pixels of its file.
        heat: float32 [h, w] over the network's input, non-negative.
    """
    pixels = np.asarray(panel, np.float32)
    shares, seen = interpolate_heat(heat, placement, panel.size)
    gray = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    warm = shares[:, :, None]
    # Desaturate the image under the heat map, so that its own colors are not mistaken for heat.
    mixed = pixels * (1 - 0.5 * warm) + gray[:, :, None] * 0.5 * warm
    mixed = mixed * (1 - MAX_OPACITY * warm) + _colors(shares) * MAX_OPACITY * warm
    mixed = np.where(seen[:, :, None], mixed, pixels * DIMMED)
    shown = Image.fromarray(np.clip(mixed, 0, 255).round().astype(np.uint8))
    if not seen.all() and seen.any():
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        box = (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
        ImageDraw.Draw(shown).rectangle(box, outline=EDGE, width=1)
    return shown


def interpolate_heat(heat: Floats, placement: Placement, size: Size) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Interpolate a heat map to the pixels of a panel.

    Args:
        heat: float32 [h, w] over the network's input, non-negative.
        placement: Where the network's input lies in the image.
        size: The panel's width and height.

    Returns:
        float32 [H, W] in [0, 1], with 1 at the maximum; and bool [H, W], True for pixels that the network saw.
    """
    hottest = float(heat.max())
    shares = heat / hottest if hottest > 0 else np.zeros_like(heat)
    map_size = heat.shape[1], heat.shape[0]
    # Map a pixel of the panel to a position of the heat map, by way of the image's and the input's pixels.
    steps = [placement.size[axis] / size[axis] / placement.step[axis] for axis in (0, 1)]
    starts = [-placement.start[axis] / placement.step[axis] for axis in (0, 1)]
    inputs = placement.inputs
    scale = [map_size[axis] / inputs[axis] for axis in (0, 1)]
    terms = (steps[0] * scale[0], 0, starts[0] * scale[0], 0, steps[1] * scale[1], starts[1] * scale[1])
    smooth = Image.fromarray(shares.astype(np.float32)).transform(
        size, Image.Transform.AFFINE, terms, Image.Resampling.BICUBIC
    )
    visible = []
    for axis in (0, 1):
        centers = (np.arange(size[axis]) + 0.5) * steps[axis] + starts[axis]
        visible.append((centers >= 0) & (centers <= inputs[axis]))
    seen = visible[1][:, None] & visible[0][None, :]
    return np.clip(np.asarray(smooth), 0, 1) * seen, seen


def _colors(shares: Floats) -> Floats:
    """Map shares [...] in [0, 1] to RGB colors [..., 3]."""
    stops = np.linspace(0, 1, len(COLORMAP))
    return np.stack([np.interp(shares, stops, COLORMAP[:, channel]) for channel in range(3)], -1).astype(np.float32)


def _draw_classes(pen: ImageDraw.ImageDraw, corner: tuple[int, int], ranking: Sequence[tuple[str, float]]) -> None:
    """Draw a row for each class: its name, its confidence, and a bar."""
    left, top = corner
    for rank, (name, confidence) in enumerate(ranking):
        text, size = _format_confidence(confidence), 17 if rank else 20
        baseline = top + 18
        width = text_width(text, size)
        draw_text(pen, (left, baseline), shorten_text(name, size, COLUMN - width - 14), INK, size)
        draw_text(pen, (left + COLUMN - width, baseline), text, INK if rank == 0 else PALE, size)
        pen.rounded_rectangle((left, top + 27, left + COLUMN, top + 35), 4, FAINT)
        filled = round(COLUMN * confidence)
        if filled >= 1:
            pen.rounded_rectangle(
                (left, top + 27, left + max(filled, 8), top + 35), 4, OTHER_BAR if rank else LABEL_BAR
            )
        top += 52


def _draw_legend(sheet: Image.Image, corner: tuple[int, int], notes: Sequence[str]) -> None:
    """Draw the legend of the heat map."""
    left, top = corner
    pen = ImageDraw.Draw(sheet)
    draw_text(pen, (left, top + 9), shorten_text(notes[0], 13, COLUMN), INK, 13)
    top += LINE
    ramp = np.broadcast_to(_colors(np.linspace(0, 1, 90, dtype=np.float32)), (10, 90, 3))
    sheet.paste(Image.fromarray(ramp.round().astype(np.uint8)), (left + 40, top))
    draw_text(pen, (left, top + 9), "low", PALE, 13)
    draw_text(pen, (left + 138, top + 9), "high", PALE, 13)
    for line in notes[1:]:
        top += LINE
        draw_text(pen, (left, top + 9), shorten_text(line, 13, COLUMN), PALE, 13)


def _notes(placement: Placement, heat: Floats, label: str) -> list[str]:
    lines = [f"Evidence for {label}" if heat.max() > 0 else f"No evidence for {label}"]
    if placement.leaves_out:
        lines.append("dark: not seen by the network")
    return lines


def _format_confidence(share: float) -> str:
    """Format a confidence; never as 100 % unless it is 1."""
    return "> 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"
