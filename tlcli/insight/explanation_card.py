"""The image that explains an image: as it is, with what speaks for the label on top, and the likeliest classes.

h x w places of a map; panels of H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tlcli.images.preprocess import Placement
from tlcli.images.text_drawing import draw_text, shorten_text, text_width

Floats = npt.NDArray[np.float32]
Pair = tuple[int, int]

LONGEST = 640
"""Pixels along a panel's longer side, at most."""
TALLEST = 400
"""Pixels of a panel's height, where the two stand beside each other."""
WIDE = 1.9
"""From this many times as wide as tall, the two stand one above the other."""
MARGIN, GAP, LINE = 28, 20, 24
"""Pixels: around all, between panels, and of a line of small text."""
COLUMN = 300
"""Pixels of the width of what is said beside the panels."""

GROUND, INK, PALE, FAINT = (255, 255, 255), (28, 28, 30), (110, 110, 116), (232, 232, 236)
ACCENT, OTHERS = (214, 84, 20), (150, 150, 158)
"""Colors of the label's bar, and of the other classes'."""
EDGE = (255, 255, 255)

HEAT = np.array([(60, 8, 120), (150, 20, 130), (220, 60, 70), (250, 140, 20), (255, 235, 90)], np.float32)
"""From little to much, each brighter than the one before, so that it reads without color too."""
OPAQUE = 0.72
"""How far the hottest place hides the image."""
DIMMED = 0.38
"""Of its brightness, what the network did not see keeps."""


def card(
    name: str, image: Image.Image, placement: Placement, heat: Floats, ranking: Sequence[tuple[str, float]]
) -> Image.Image:
    """Draw it.

    Args:
        name: Of the image, for its heading.
        image: RGB, upright, of any size.
        placement: Where the network's input lies in it, in the pixels of its file.
        heat: float32 [h, w], over the network's input; none below 0.
        ranking: Classes and their confidences, the label first.
    """
    panel = panel_size(placement.size)
    plain = image.resize(panel, Image.Resampling.LANCZOS)
    warm = overlay(plain, placement, heat)
    stacked = placement.size[0] >= WIDE * placement.size[1]
    across, down = (panel[0], 2 * panel[1] + GAP) if stacked else (2 * panel[0] + GAP, panel[1])
    notes = _notes(placement, heat, ranking[0][0])
    said = 52 * len(ranking) + 26 + LINE * (len(notes) + 1)
    top = MARGIN + 16 + GAP
    size = (2 * MARGIN + across + 2 * GAP + COLUMN, top + max(down, said) + MARGIN)
    sheet = Image.new("RGB", size, GROUND)
    pen = ImageDraw.Draw(sheet)
    draw_text(pen, (MARGIN, MARGIN + 12), shorten_text(name, 15, size[0] - 2 * MARGIN, front=True), PALE, 15)
    sheet.paste(plain, (MARGIN, top))
    sheet.paste(warm, (MARGIN, top + panel[1] + GAP) if stacked else (MARGIN + panel[0] + GAP, top))
    left = MARGIN + across + 2 * GAP
    _classes(pen, (left, top), ranking)
    _legend(sheet, (left, top + 52 * len(ranking) + 26), notes)
    return sheet


def panel_size(size: Pair) -> Pair:
    """Width and height at which an upright image of `size` is shown."""
    most = (LONGEST, LONGEST) if size[0] >= WIDE * size[1] else (LONGEST, TALLEST)
    scale = min(most[0] / size[0], most[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def overlay(panel: Image.Image, placement: Placement, heat: Floats) -> Image.Image:
    """An image with the heat on top of it, each place where it lies; what the network did not see is dark.

    Args:
        panel: RGB; the whole image.
        placement: Where the network's input lies in it, in the pixels of its file.
        heat: float32 [h, w].
    """
    pixels = np.asarray(panel, np.float32)
    shares, seen = spread(heat, placement, panel.size)
    gray = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    warm = shares[:, :, None]
    # Paler where it is warm, so that the image's own colors aren't taken for heat.
    mixed = pixels * (1 - 0.5 * warm) + gray[:, :, None] * 0.5 * warm
    mixed = mixed * (1 - OPAQUE * warm) + _colors(shares) * OPAQUE * warm
    mixed = np.where(seen[:, :, None], mixed, pixels * DIMMED)
    shown = Image.fromarray(np.clip(mixed, 0, 255).round().astype(np.uint8))
    if not seen.all() and seen.any():
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        box = (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
        ImageDraw.Draw(shown).rectangle(box, outline=EDGE, width=1)
    return shown


def spread(heat: Floats, placement: Placement, size: Pair) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The heat at each pixel of a panel.

    Args:
        heat: float32 [h, w], over the network's input.
        placement: Where the input lies in the image.
        size: The panel's width and height.

    Returns:
        float32 [H, W] in [0, 1], 1 where it is hottest; and which pixels [H, W] the network saw.
    """
    hottest = float(heat.max())
    shares = heat / hottest if hottest > 0 else np.zeros_like(heat)
    places = heat.shape[1], heat.shape[0]
    # A pixel of the panel, as a place of the map: by way of the image's own pixels and the input's.
    steps = [placement.size[axis] / size[axis] / placement.step[axis] for axis in (0, 1)]
    starts = [-placement.start[axis] / placement.step[axis] for axis in (0, 1)]
    inputs = placement.inputs
    scale = [places[axis] / inputs[axis] for axis in (0, 1)]
    terms = (steps[0] * scale[0], 0, starts[0] * scale[0], 0, steps[1] * scale[1], starts[1] * scale[1])
    smooth = Image.fromarray(shares.astype(np.float32)).transform(
        size, Image.Transform.AFFINE, terms, Image.Resampling.BICUBIC
    )
    sights = []
    for axis in (0, 1):
        centers = (np.arange(size[axis]) + 0.5) * steps[axis] + starts[axis]
        sights.append((centers >= 0) & (centers <= inputs[axis]))
    seen = sights[1][:, None] & sights[0][None, :]
    return np.clip(np.asarray(smooth), 0, 1) * seen, seen


def _colors(shares: Floats) -> Floats:
    """Shares [...] in [0, 1] to RGB [..., 3]."""
    stops = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(shares, stops, HEAT[:, channel]) for channel in range(3)], -1).astype(np.float32)


def _classes(pen: ImageDraw.ImageDraw, place: Pair, ranking: Sequence[tuple[str, float]]) -> None:
    """A class a row: its name, its confidence, and a bar."""
    left, top = place
    for rank, (name, confidence) in enumerate(ranking):
        text, size = _percent(confidence), 17 if rank else 20
        baseline = top + 18
        width = text_width(text, size)
        draw_text(pen, (left, baseline), shorten_text(name, size, COLUMN - width - 14), INK, size)
        draw_text(pen, (left + COLUMN - width, baseline), text, INK if rank == 0 else PALE, size)
        pen.rounded_rectangle((left, top + 27, left + COLUMN, top + 35), 4, FAINT)
        filled = round(COLUMN * confidence)
        if filled >= 1:
            pen.rounded_rectangle((left, top + 27, left + max(filled, 8), top + 35), 4, OTHERS if rank else ACCENT)
        top += 52


def _legend(sheet: Image.Image, place: Pair, notes: Sequence[str]) -> None:
    """What the colors mean."""
    left, top = place
    pen = ImageDraw.Draw(sheet)
    draw_text(pen, (left, top + 9), shorten_text(notes[0], 13, COLUMN), INK, 13)
    top += LINE
    ramp = np.broadcast_to(_colors(np.linspace(0, 1, 90, dtype=np.float32)), (10, 90, 3))
    sheet.paste(Image.fromarray(ramp.round().astype(np.uint8)), (left + 40, top))
    draw_text(pen, (left, top + 9), "little", PALE, 13)
    draw_text(pen, (left + 138, top + 9), "much", PALE, 13)
    for line in notes[1:]:
        top += LINE
        draw_text(pen, (left, top + 9), shorten_text(line, 13, COLUMN), PALE, 13)


def _notes(placement: Placement, heat: Floats, label: str) -> list[str]:
    lines = [f"What speaks for {label}" if heat.max() > 0 else f"No place speaks for {label}"]
    if placement.leaves_out:
        lines.append("dark: what the network did not see")
    return lines


def _percent(share: float) -> str:
    """A confidence for people; never 100 % where it isn't 1."""
    return "> 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"
