"""Backgrounds of the sample images: the same streets for all classes, so they do not reveal the class.

A scene uses a simple camera: at `s` pixels per meter, a point `x` meters to the right of the camera and `y` meters
above the ground is `x * s` right of the vanishing point and `(eye - y) * s` below the horizon. Objects further down in
the image are therefore larger.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from brush import Color, Pen, Point, circle, mix, paint_color, pick, shade, smooth

WALLS: list[Color] = [
    (198, 178, 150),
    (168, 96, 76),
    (208, 204, 196),
    (142, 122, 108),
    (188, 150, 110),
    (120, 128, 138),
]
LEAVES: list[Color] = [(66, 112, 52), (92, 130, 60), (48, 92, 58), (150, 122, 48), (120, 140, 80)]
ASPHALT: list[Color] = [(92, 94, 98), (112, 110, 108), (76, 80, 88)]
PAVING: list[Color] = [(168, 164, 158), (150, 140, 128), (182, 174, 160), (140, 144, 148)]
GRASS: list[Color] = [(104, 138, 66), (128, 148, 78), (92, 118, 62), (152, 146, 88)]
SKIES: list[tuple[Color, Color]] = [
    ((98, 150, 208), (206, 224, 236)),
    ((166, 176, 186), (214, 216, 216)),
    ((120, 116, 156), (242, 190, 146)),
    ((128, 172, 202), (236, 232, 214)),
    ((70, 84, 120), (178, 168, 170)),
]


@dataclass(frozen=True)
class View:
    """The camera: size of the image, horizon, height of the camera, and vanishing point."""

    width: int
    height: int
    horizon: float
    eye: float
    center: float

    def point(self, x: float, y: float, scale: float) -> Point:
        """Project a point of the street to the image."""
        return self.center + x * scale, self.horizon + (self.eye - y) * scale

    def scale_at(self, row: float) -> float:
        """Return the pixels per meter of objects on the ground at a row of the image."""
        return (row - self.horizon) / self.eye


def random_view(rng: np.random.Generator) -> View:
    width, height = int(rng.integers(212, 272)), int(rng.integers(160, 204))
    horizon = height * rng.uniform(0.36, 0.5)
    return View(width, height, horizon, rng.uniform(1.15, 1.75), width * rng.uniform(0.3, 0.7))


def sky(pen: Pen, view: View, rng: np.random.Generator) -> None:
    top, bottom = SKIES[int(rng.integers(len(SKIES)))]
    low = view.horizon + 4
    pen.gradient([(0, 0), (view.width, 0), (view.width, low), (0, low)], pick(rng, [top]), pick(rng, [bottom]))
    for _ in range(int(rng.integers(0, 4))):
        x, y, size = rng.uniform(0, view.width), rng.uniform(0, view.horizon * 0.7), rng.uniform(8, 26)
        outline = [(px * rng.uniform(1.5, 3), py * 0.5) for px, py in circle(0, 0, size, 9)]
        pen.soft([(x + px, y + py) for px, py in smooth(outline)], (250, 248, 244), rng.uniform(0.3, 0.75), 4)
    if rng.random() < 0.5:
        ridge = [(view.width * i / 6, view.horizon - rng.uniform(4, 26)) for i in range(7)]
        color = mix(pick(rng, LEAVES), bottom, rng.uniform(0.4, 0.75))
        pen.polygon([*smooth(ridge, closed=False), (view.width, low), (0, low)], color)


def tree(pen: Pen, rng: np.random.Generator, height: float) -> None:
    """Draw a tree at the origin with a round or a pointed crown; its height is in meters."""
    bark, leaf = pick(rng, [(92, 70, 52), (110, 96, 82), (70, 56, 48)]), pick(rng, LEAVES)
    trunk = height * rng.uniform(0.02, 0.035)
    pen.limb((0, trunk), (0.02 * height, height * 0.6), trunk * 1.2, trunk * 0.6, bark)
    if rng.random() < 0.22:
        for i in range(4):
            low, wide = height * (0.16 + 0.2 * i), height * (0.24 - 0.05 * i)
            layer = [(-wide, low), (0, low + height * 0.32), (wide, low), (0, low - height * 0.03)]
            pen.polygon(layer, shade(leaf, 0.8 + 0.1 * i))
        return
    for side in (-1, 1):
        pen.line([(0, height * 0.4), (side * height * 0.13, height * 0.6)], trunk * 0.7, bark)
    count = int(rng.integers(11, 18))
    for i in range(count):
        spread = rng.uniform(-0.22, 0.22) * height
        y = height * rng.uniform(0.5, 0.84) - abs(spread) * 0.3
        size, light = height * rng.uniform(0.09, 0.16), 0.72 + 0.42 * i / count
        blob = [(spread + dx * rng.uniform(0.8, 1.15), y + dy) for dx, dy in circle(0, 0, size, 10)]
        pen.blob(blob, shade(leaf, light))


def window(pen: Pen, corners: list[Point], rng: np.random.Generator, frame: Color) -> None:
    lit = rng.random() < 0.12
    top = (246, 214, 140) if lit else pick(rng, [(74, 90, 108), (120, 142, 160), (52, 60, 72)], 8)
    pen.gradient(corners, shade(top, 1.1), shade(top, 0.75))
    pen.line([*corners, corners[0]], 0.7, frame)


def facade(pen: Pen, view: View, rng: np.random.Generator, ends: tuple[tuple[float, float], ...]) -> None:
    """Draw the front of a house between two points on the ground, each `(x, scale)`, in any direction."""
    (x0, s0), (x1, s1) = ends
    storeys, storey = int(rng.integers(2, 5)), rng.uniform(2.7, 3.3)
    top = storeys * storey + rng.uniform(0.3, 0.9)
    wall = pick(rng, WALLS)
    trim = shade(wall, rng.choice([0.6, 1.45]))

    def place(share: float, y: float) -> Point:
        depth = (1 - share) / s0 + share / s1
        return view.point(x0 + (x1 - x0) * share, y, 1 / depth)

    def patch(left: float, right: float, low: float, high: float) -> list[Point]:
        return [place(left, high), place(right, high), place(right, low), place(left, low)]

    pen.gradient(patch(0, 1, 0, top), shade(wall, 1.08), shade(wall, 0.82))
    roof = shade(pick(rng, [(120, 66, 54), (84, 80, 84), (100, 84, 70)]), 0.95)
    if rng.random() < 0.6:
        rise = rng.uniform(1.0, 2.6)
        pen.polygon([place(0.08, top + rise), place(0.92, top + rise), place(1.02, top), place(-0.02, top)], roof)
    pen.polygon(patch(0, 1, top - 0.2, top), trim)
    pen.polygon(patch(0, 1, 0, 0.5), shade(wall, 0.65))
    columns = int(rng.integers(3, 6))
    shop, door = rng.random() < 0.4, int(rng.integers(columns))
    for column in range(columns):
        middle, half = (column + 0.5) / columns, rng.uniform(0.2, 0.26) / columns
        for level in range(storeys):
            low = level * storey + 0.9
            if level == 0 and column == door:
                pen.polygon(patch(middle - half, middle + half, 0, 2.2), paint_color(rng))
            elif level or not shop:
                window(pen, patch(middle - half, middle + half, low, low + 1.5), rng, trim)
    if shop:
        pen.gradient(patch(0.06, 0.94, 0.6, 2.1), (92, 104, 116), (150, 152, 150))
        pen.polygon(patch(0.03, 0.97, 2.15, 2.75), paint_color(rng))


def ground(pen: Pen, view: View, rows: list[tuple[float, Color]]) -> None:
    """Draw bands of ground below the horizon, each starting at its first row."""
    ends = [row for row, _ in rows[1:]] + [view.height + 1]
    for (row, color), end in zip(rows, ends, strict=True):
        corners = [(0, row), (view.width, row), (view.width, end), (0, end)]
        pen.gradient(corners, shade(color, 1.06), shade(color, 0.9))


def street_across(pen: Pen, view: View, rng: np.random.Generator) -> None:
    """Draw a street seen from its other side, with houses or trees behind it."""
    drop = view.height - view.horizon
    base = view.horizon + drop * rng.uniform(0.14, 0.24)
    curb = base + drop * rng.uniform(0.06, 0.16)
    near = view.horizon + drop * rng.uniform(0.68, 1.1)
    paving, asphalt, grass = pick(rng, PAVING), pick(rng, ASPHALT, 8), pick(rng, GRASS)
    front = paving if rng.random() < 0.6 else grass
    ground(pen, view, [(view.horizon, grass), (base, paving)])
    scale = view.scale_at(base)
    x = -view.center / scale - rng.uniform(0, 5)
    green = rng.random() < 0.35
    while x < (view.width - view.center) / scale:
        wide = rng.uniform(5, 10)
        if green or rng.random() < 0.15:
            for step in np.arange(0, wide, 2.2):
                place = view.point(x + step, 0, scale)
                tree(pen.at(*place, scale), rng, rng.uniform(3.5, 7))
        else:
            facade(pen, view, rng, ((x, scale), (x + wide, scale)))
        x += wide
    rows = [(base, paving), (curb, shade(paving, 0.7)), (curb + 1.6, asphalt)]
    if near < view.height:
        rows += [(near, shade(front, 0.7)), (near + 3, front)]
    ground(pen, view, rows)
    middle = (curb + min(near, view.height)) / 2
    long, phase = rng.uniform(16, 34), rng.uniform(0, 40)
    for start in np.arange(-phase, view.width, long * 1.9):
        stripe = [(start, middle), (start + long, middle), (start + long - 3, middle + 2.2), (start - 3, middle + 2.2)]
        pen.polygon(stripe, (216, 214, 204), 0.8)


def street_along(pen: Pen, view: View, rng: np.random.Generator) -> None:
    """Draw a street that leads away from the camera, with houses or trees on both sides."""
    paving, asphalt, grass = pick(rng, PAVING), pick(rng, ASPHALT, 8), pick(rng, GRASS)
    side = paving if rng.random() < 0.7 else grass
    ground(pen, view, [(view.horizon, side)])
    half, verge = rng.uniform(2.6, 4.6), rng.uniform(1.8, 3.2)
    near, far = 400.0, 0.4
    quad = [view.point(x, 0, s) for x, s in ((-half, far), (half, far), (half, near), (-half, near))]
    for direction in (-1, 1):
        edge = direction * (half + verge)
        depth = rng.uniform(55, 75)
        trees = rng.random() < 0.3
        while depth > 4:
            nearer = depth - rng.uniform(7, 12)
            if trees:
                place = view.point(edge, 0, 200 / depth)
                tree(pen.at(*place, 200 / depth), rng, rng.uniform(4, 7.5))
            else:
                facade(pen, view, rng, ((edge, 200 / depth), (edge, 200 / max(nearer, 3))))
            depth = nearer + 4 if trees else nearer
    pen.gradient(quad, shade(asphalt, 1.08), shade(asphalt, 0.92))
    for direction in (-1, 1):
        curb = [(direction * half, far), (direction * (half + 0.18), far)]
        curb += [(direction * (half + 0.18), near), (direction * half, near)]
        pen.polygon([view.point(x, 0, s) for x, s in curb], shade(paving, 0.75))
    for depth in np.arange(rng.uniform(2, 5), 60, 5.5):
        dash = [(-0.07, depth), (0.07, depth), (0.07, depth + 2.4), (-0.07, depth + 2.4)]
        pen.polygon([view.point(x, 0, 200 / d) for x, d in dash], (216, 214, 204), 0.85)


def square(pen: Pen, view: View, rng: np.random.Generator) -> None:
    """Draw a park or an open square with a hedge or a wall along its far end."""
    floor = pick(rng, PAVING + GRASS + ASPHALT)
    ground(pen, view, [(view.horizon, floor)])
    base = view.horizon + (view.height - view.horizon) * rng.uniform(0.06, 0.16)
    scale = view.scale_at(base)
    for x in np.arange(-view.center / scale - 2, (view.width - view.center) / scale + 2, rng.uniform(2.5, 5)):
        place = view.point(x + rng.uniform(-1, 1), 0, scale)
        tree(pen.at(*place, scale), rng, rng.uniform(4, 9))
    hedge = pick(rng, LEAVES + WALLS)
    top = base - rng.uniform(0.6, 1.3) * scale
    pen.gradient([(0, top), (view.width, top), (view.width, base), (0, base)], shade(hedge, 1.05), shade(hedge, 0.6))
    bend, wide = rng.uniform(-6, 6), rng.uniform(1, 2.5)
    path = [(bend - wide, scale), (bend + wide, scale), (wide, 300.0), (-wide, 300.0)]
    pen.gradient([view.point(x, 0, s) for x, s in path], *[pick(rng, PAVING + ASPHALT) for _ in range(2)])


def backdrop(pen: Pen, view: View, rng: np.random.Generator) -> None:
    """Draw the background of an image."""
    sky(pen, view, rng)
    kinds = [street_across, street_along, square]
    kinds[int(rng.choice(3, p=[0.45, 0.33, 0.22]))](pen, view, rng)
