"""Drawing tools of the sample images: colors, smooth curves, and a pen with its own coordinates.

Everything is drawn three times as large as the final image and scaled down at the end, which smooths the hard edges of
Pillow's shapes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SUPERSAMPLING = 3

Color = tuple[int, int, int]
Point = tuple[float, float]


def mix(a: Color, b: Color, share: float) -> Color:
    """Interpolate between `a` (share 0) and `b` (share 1)."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def shade(color: Color, factor: float) -> Color:
    """Darken (factor below 1) or lighten (above 1) a color."""
    if factor <= 1:
        return mix((0, 0, 0), color, max(factor, 0.0))
    return mix(color, (255, 255, 255), min((factor - 1) * 0.9, 1.0))


def pick(rng: np.random.Generator, colors: Sequence[Color], spread: float = 10) -> Color:
    """Choose one of the colors and vary it slightly."""
    lighter, hue = rng.normal(0, spread), rng.normal(0, spread * 0.45, 3)
    chosen = np.array(colors[int(rng.integers(len(colors)))]) + lighter + hue
    red, green, blue = (int(value) for value in np.clip(chosen, 0, 255))
    return red, green, blue


def paint_color(rng: np.random.Generator) -> Color:
    """Choose a color for a car, a coat, a trash can, or a door; all classes use the same colors."""
    colors = [
        (178, 38, 40),
        (42, 78, 150),
        (226, 226, 222),
        (46, 48, 54),
        (150, 154, 158),
        (40, 108, 78),
        (222, 178, 52),
        (204, 112, 44),
        (110, 160, 196),
        (116, 60, 92),
        (176, 158, 128),
        (92, 66, 52),
    ]
    return pick(rng, colors)


def smooth(points: Sequence[Point], steps: int = 6, closed: bool = True) -> list[Point]:
    """Return a Catmull-Rom curve through the points."""
    count = len(points)
    curve: list[Point] = []
    for i in range(count if closed else count - 1):
        around = [i - 1, i, i + 1, i + 2]
        index = [j % count if closed else min(max(j, 0), count - 1) for j in around]
        p = np.array([points[j] for j in index])
        for t in np.arange(steps) / steps:
            weights = np.array(
                [
                    -0.5 * t + t * t - 0.5 * t**3,
                    1 - 2.5 * t * t + 1.5 * t**3,
                    0.5 * t + 2 * t * t - 1.5 * t**3,
                    0.5 * t**3 - 0.5 * t * t,
                ]
            )
            x, y = weights @ p
            curve.append((float(x), float(y)))
    if not closed:
        curve.append(points[-1])
    return curve


def circle(x: float, y: float, radius: float, steps: int = 28) -> list[Point]:
    """Return a circle as a polygon."""
    turn = [2 * math.pi * i / steps for i in range(steps)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in turn]


@dataclass(frozen=True)
class Pen:
    """Draws on an image in its own coordinates, given by their origin and the length of a unit in pixels."""

    image: Image.Image
    left: float = 0.0
    top: float = 0.0
    x_unit: float = SUPERSAMPLING
    y_unit: float = SUPERSAMPLING

    def at(self, x: float, y: float, unit: float, flip: bool = False) -> Pen:
        """Return a pen with its origin at a point of this one, y pointing up, and `unit` pixels per meter."""
        (left, top), size = self._place([(x, y)])[0], unit * SUPERSAMPLING
        return replace(self, left=left, top=top, x_unit=-size if flip else size, y_unit=-size)

    def _place(self, points: Sequence[Point]) -> list[Point]:
        return [(self.left + x * self.x_unit, self.top + y * self.y_unit) for x, y in points]

    def polygon(self, points: Sequence[Point], color: Color, opacity: float = 1.0) -> None:
        """Draw a filled polygon."""
        ImageDraw.Draw(self.image, "RGBA").polygon(self._place(points), (*color, round(255 * opacity)))

    def box(self, x: float, y: float, width: float, height: float, color: Color) -> None:
        """Draw a filled rectangle from one of its corners."""
        self.polygon([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], color)

    def disc(self, x: float, y: float, radius: float, color: Color, opacity: float = 1.0) -> None:
        """Draw a filled circle."""
        self.polygon(circle(x, y, radius), color, opacity)

    def blob(self, points: Sequence[Point], color: Color, opacity: float = 1.0) -> None:
        """Draw a filled shape with a smooth outline through the points."""
        self.polygon(smooth(points), color, opacity)

    def line(self, points: Sequence[Point], width: float, color: Color) -> None:
        """Draw a line with round ends."""
        placed = self._place(points)
        thick = max(1, round(width * abs(self.x_unit)))
        draw = ImageDraw.Draw(self.image)
        draw.line(placed, fill=color, width=thick, joint="curve")
        if thick > 3:
            for x, y in (placed[0], placed[-1]):
                draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=color)

    def limb(self, a: Point, b: Point, wide: float, narrow: float, color: Color) -> None:
        """Draw a tapering limb with round ends of the radii `wide` and `narrow`."""
        angle = math.atan2(b[1] - a[1], b[0] - a[0]) + math.pi / 2
        dx, dy = math.cos(angle), math.sin(angle)
        corners = [
            (a[0] + dx * wide, a[1] + dy * wide),
            (b[0] + dx * narrow, b[1] + dy * narrow),
            (b[0] - dx * narrow, b[1] - dy * narrow),
            (a[0] - dx * wide, a[1] - dy * wide),
        ]
        self.polygon(corners, color)
        self.disc(*a, wide, color)
        self.disc(*b, narrow, color)

    def gradient(self, points: Sequence[Point], top: Color, bottom: Color) -> None:
        """Draw a polygon with a vertical color gradient."""
        placed = self._place(points)
        xs, ys = [x for x, _ in placed], [y for _, y in placed]
        box = (math.floor(min(xs)), math.floor(min(ys)), math.ceil(max(xs)) + 1, math.ceil(max(ys)) + 1)
        size = (box[2] - box[0], box[3] - box[1])
        ramp = np.linspace(0, 1, size[1])[:, None, None]
        rows = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
        fill = Image.fromarray(np.repeat(rows, size[0], axis=1).round().astype(np.uint8))
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).polygon([(x - box[0], y - box[1]) for x, y in placed], 255)
        self.image.paste(fill, box[:2], mask)

    def soft(self, points: Sequence[Point], color: Color, opacity: float, blur: float) -> None:
        """Draw a polygon with blurred edges: a shadow, a cloud, or the glow of a lamp."""
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(self._place(points), round(255 * opacity))
        mask = mask.filter(ImageFilter.GaussianBlur(blur * abs(self.x_unit)))
        self.image.paste(Image.new("RGB", self.image.size, color), (0, 0), mask)

    def shadow(self, width: float, depth: float, opacity: float, lean: float = 0.0) -> None:
        """Draw the shadow of an object at the origin."""
        points = [(x * width / 2 + lean, y * depth / 2) for x, y in circle(0, 0, 1)]
        self.soft(points, (12, 14, 24), opacity, depth * 0.22)
