"""Other objects in a street: signs, lamp posts, trash cans, benches, bicycles, dogs, and so on."""

from __future__ import annotations

import math

import numpy as np
from brush import Color, Pen, Point, circle, mix, paint_color, pick, shade
from scenery import LEAVES, WALLS, tree

METAL: list[Color] = [(70, 74, 78), (120, 124, 128), (48, 56, 52), (150, 150, 148)]
WOOD: list[Color] = [(140, 98, 60), (112, 80, 56), (166, 130, 90)]


def lamp_post(pen: Pen, rng: np.random.Generator) -> None:
    metal, tall, reach = pick(rng, METAL), rng.uniform(3.2, 5), rng.uniform(0.5, 1.2)
    pen.shadow(0.6, 0.2, 0.5)
    pen.limb((0, 0.1), (0, tall), 0.09, 0.05, metal)
    pen.box(-0.13, 0, 0.26, 0.45, shade(metal, 0.8))
    if rng.random() < 0.5:
        pen.line([(0, tall), (reach * 0.4, tall + 0.2), (reach, tall + 0.2)], 0.07, metal)
        pen.blob(
            [(reach - 0.15, tall + 0.24), (reach + 0.3, tall + 0.22), (reach + 0.1, tall + 0.1)], shade(metal, 0.7)
        )
    else:
        pen.disc(0, tall + 0.18, 0.24, (244, 236, 206))
        pen.polygon([(-0.28, tall + 0.3), (0.28, tall + 0.3), (0, tall + 0.55)], shade(metal, 0.7))


def sign(pen: Pen, rng: np.random.Generator) -> None:
    tall, size = rng.uniform(1.7, 2.5), rng.uniform(0.3, 0.42)
    pen.shadow(0.5, 0.18, 0.5)
    pen.limb((0, 0), (0, tall + size), 0.045, 0.04, pick(rng, METAL))
    corners = int(rng.choice([3, 4, 8, 28]))
    edge, face = (184, 34, 38), pick(rng, [(240, 238, 230), (44, 88, 168), (236, 190, 50), (184, 34, 38)], 8)

    def plate(radius: float) -> list[Point]:
        turn = math.pi / 2 + (math.pi / 8 if corners == 8 else 0)
        points = [
            (math.cos(turn + 2 * math.pi * i / corners), math.sin(turn + 2 * math.pi * i / corners))
            for i in range(corners)
        ]
        return [(radius * x, tall + radius * y) for x, y in points]

    pen.polygon(plate(size), edge if face[0] > 100 else (236, 236, 232))
    pen.polygon(plate(size * 0.8), face)
    mark = (36, 38, 44) if face[0] > 200 else (240, 240, 236)
    pen.box(-size * 0.4, tall - size * 0.12, size * 0.8, size * 0.24, mark)


def traffic_light(pen: Pen, rng: np.random.Generator) -> None:
    tall = rng.uniform(1.9, 2.6)
    pen.shadow(0.5, 0.18, 0.5)
    pen.limb((0, 0), (0, tall), 0.06, 0.06, pick(rng, METAL))
    pen.box(-0.18, tall - 0.1, 0.36, 0.98, (38, 42, 44))
    on = int(rng.integers(3))
    for i, color in enumerate([(52, 196, 96), (240, 180, 48), (226, 52, 46)]):
        pen.disc(0, tall + 0.09 + 0.3 * i, 0.12, color if i == on else shade(color, 0.3))


def trash_can(pen: Pen, rng: np.random.Generator) -> None:
    paint, wide, tall = paint_color(rng), rng.uniform(0.45, 0.7), rng.uniform(0.85, 1.15)
    pen.shadow(wide * 1.5, 0.25, 0.6)
    half = wide / 2
    pen.gradient(
        [(-half, tall), (half, tall), (half * 0.84, 0.06), (-half * 0.84, 0.06)], shade(paint, 1.1), shade(paint, 0.7)
    )
    pen.polygon([(half * 0.4, tall), (half, tall), (half * 0.84, 0.06), (half * 0.34, 0.06)], (0, 0, 0), 0.16)
    lid = [(-half * 1.1, tall), (half * 1.1, tall), (half * 0.9, tall + 0.14), (-half * 0.95, tall + 0.17)]
    pen.polygon(lid, shade(paint, 0.75))
    pen.box(-half * 0.5, tall * 0.55, half, 0.2, mix(paint, (240, 240, 236), 0.7))
    for side in (-0.6, 0.6):
        pen.disc(half * side, 0.08, 0.08, (30, 30, 32))


def bench(pen: Pen, rng: np.random.Generator) -> None:
    wood, metal, half = pick(rng, WOOD), shade(pick(rng, METAL), 0.8), rng.uniform(0.75, 1.1)
    pen.shadow(half * 2.3, 0.4, 0.55)
    for x in (-half * 0.8, half * 0.8):
        pen.line([(x, 0.02), (x + 0.02, 0.45), (x - 0.06, 0.95)], 0.06, metal)
        pen.line([(x + 0.02, 0.43), (x + 0.12, 0.43), (x + 0.14, 0)], 0.06, metal)
    for y, light in ((0.84, 1.1), (0.7, 1.0), (0.56, 0.92)):
        pen.box(-half, y, half * 2, 0.1, shade(wood, light))
    pen.polygon([(-half, 0.5), (half, 0.5), (half * 1.06, 0.38), (-half * 0.98, 0.38)], shade(wood, 0.85))


def hydrant(pen: Pen, rng: np.random.Generator) -> None:
    paint = paint_color(rng)
    pen.shadow(0.7, 0.2, 0.6)
    pen.gradient([(-0.15, 0.62), (0.15, 0.62), (0.17, 0), (-0.17, 0)], shade(paint, 1.1), shade(paint, 0.7))
    pen.box(-0.22, 0, 0.44, 0.08, shade(paint, 0.7))
    pen.blob([(-0.18, 0.62), (-0.12, 0.76), (0, 0.82), (0.12, 0.76), (0.18, 0.62)], shade(paint, 0.95))
    pen.box(-0.04, 0.8, 0.08, 0.07, shade(paint, 0.7))
    for x in (-0.21, 0.21):
        pen.disc(x, 0.46, 0.075, shade(paint, 0.8))
    pen.disc(0, 0.43, 0.1, shade(paint, 0.65))


def bicycle(pen: Pen, rng: np.random.Generator) -> None:
    paint, radius, base = paint_color(rng), 0.34, 0.53
    pen.shadow(1.7, 0.2, 0.55)
    for x in (-base, base):
        for i in range(8):
            angle = math.pi * i / 8
            dx, dy = radius * math.cos(angle), radius * math.sin(angle)
            pen.line([(x - dx, radius - dy), (x + dx, radius + dy)], 0.008, (150, 152, 156))
        rim = circle(x, radius, radius)
        pen.line([*rim, rim[0]], 0.05, (34, 34, 36))
    crank, seat, stem = (-0.06, 0.3), (-0.22, 0.82), (0.36, 0.84)
    for a, b in (
        ((-base, radius), crank),
        ((-base, radius), seat),
        (crank, seat),
        (crank, stem),
        (seat, stem),
        (stem, (base, radius)),
    ):
        pen.line([a, b], 0.045, paint)
    pen.line([seat, (-0.25, 0.93)], 0.04, (60, 60, 64))
    pen.blob([(-0.4, 0.95), (-0.25, 0.98), (-0.1, 0.93), (-0.28, 0.91)], (38, 34, 34))
    pen.line([stem, (0.34, 0.99), (0.46, 1.02), (0.52, 0.96)], 0.04, (60, 60, 64))
    pen.disc(*crank, 0.09, (84, 86, 90))
    pen.line([(-0.12, 0.16), crank, (0.02, 0.44)], 0.035, (60, 60, 64))
    if rng.random() < 0.4:
        pen.polygon([(0.44, 0.92), (0.78, 0.92), (0.72, 0.68), (0.5, 0.68)], pick(rng, WOOD))


def dog(pen: Pen, rng: np.random.Generator) -> None:
    colors = [(150, 104, 62), (60, 50, 46), (216, 200, 170), (120, 116, 114), (184, 132, 74)]
    coat, step = pick(rng, colors), rng.uniform(0.06, 0.16)
    small = Pen(pen.image, pen.left, pen.top, pen.x_unit * 1.35, pen.y_unit * 1.35)
    small.shadow(0.9, 0.18, 0.6)
    for x, away, dim in ((-0.27, -step, 0.75), (0.25, -step, 0.75), (-0.25, step, 1.0), (0.22, step, 1.0)):
        knee, foot = (x + away * 0.35, 0.18), (x + away, 0.03)
        small.limb((x, 0.36), knee, 0.07, 0.04, shade(coat, dim))
        small.limb(knee, foot, 0.035, 0.026, shade(coat, dim))
        small.disc(foot[0] + 0.03, 0.025, 0.028, shade(coat, dim * 0.9))
    small.line([(-0.32, 0.45), (-0.45, 0.52), (-0.5, 0.66)], 0.045, shade(coat, 0.9))
    body = [(-0.36, 0.46), (-0.2, 0.51), (0.1, 0.5), (0.3, 0.54), (0.33, 0.4), (0.2, 0.28), (-0.1, 0.31), (-0.32, 0.32)]
    small.blob(body, coat)
    small.limb((0.27, 0.46), (0.38, 0.64), 0.1, 0.08, coat)
    small.blob([(0.3, 0.68), (0.38, 0.75), (0.47, 0.72), (0.58, 0.64), (0.57, 0.59), (0.42, 0.58)], coat)
    small.disc(0.585, 0.635, 0.022, (28, 24, 24))
    small.disc(0.455, 0.685, 0.014, (24, 20, 20))
    small.blob([(0.33, 0.73), (0.37, 0.74), (0.36, 0.6), (0.29, 0.56), (0.27, 0.64)], shade(coat, 0.65))
    small.line([(0.27, 0.56), (0.38, 0.52)], 0.035, paint_color(rng))


def post_box(pen: Pen, rng: np.random.Generator) -> None:
    paint, half, tall = paint_color(rng), rng.uniform(0.24, 0.36), rng.uniform(1.3, 1.65)
    pen.shadow(half * 3, 0.25, 0.6)
    body = [(-half, 0.1), (-half, tall - 0.1), (0, tall), (half, tall - 0.1), (half, 0.1)]
    pen.gradient(body, shade(paint, 1.12), shade(paint, 0.72))
    pen.polygon([(half * 0.45, 0.1), (half * 0.45, tall - 0.05), (half, tall - 0.1), (half, 0.1)], (0, 0, 0), 0.17)
    pen.box(-half * 1.1, 0, half * 2.2, 0.14, shade(paint, 0.4))
    pen.box(-half * 1.12, tall - 0.16, half * 2.24, 0.09, shade(paint, 0.8))
    pen.box(-half * 0.6, tall * 0.74, half * 1.2, 0.07, (26, 26, 28))
    pen.box(-half * 0.45, tall * 0.42, half * 0.9, 0.24, (234, 232, 222))


def kiosk(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a phone booth or a small kiosk with windows."""
    paint, half, tall = paint_color(rng), rng.uniform(0.42, 0.8), rng.uniform(2.0, 2.3)
    pen.shadow(half * 2.6, 0.4, 0.6)
    pen.gradient([(-half, 0), (-half, tall), (half, tall), (half, 0)], shade(paint, 1.08), shade(paint, 0.7))
    across = max(2, round(half * 3.2))
    for i in range(across):
        for j in range(3):
            wide = (half * 2 - 0.2) / across
            pen.box(
                -half + 0.14 + i * wide, 0.6 + j * 0.46, wide - 0.08, 0.4, mix((92, 112, 126), (210, 222, 228), 0.2 * j)
            )
    pen.polygon(
        [(-half * 1.1, tall), (half * 1.1, tall), (half * 0.9, tall + 0.26), (-half * 0.9, tall + 0.26)],
        shade(paint, 0.8),
    )


def planter(pen: Pen, rng: np.random.Generator) -> None:
    half, tall = rng.uniform(0.5, 1.6), rng.uniform(0.4, 0.6)
    pen.shadow(half * 2.3, 0.4, 0.6)
    leaf, flower = pick(rng, LEAVES), paint_color(rng)
    for _ in range(int(12 * half) + 8):
        x, y, r = rng.uniform(-half, half) * 0.95, tall + rng.uniform(0, 0.4), rng.uniform(0.1, 0.2)
        pen.blob(circle(x, y, r, 7), shade(leaf, rng.uniform(0.7, 1.15)))
        if rng.random() < 0.4:
            pen.disc(x, y + r * 0.7, 0.055, shade(flower, rng.uniform(0.9, 1.2)))
    box = pick(rng, WALLS + WOOD)
    pen.gradient([(-half, tall), (half, tall), (half * 0.93, 0), (-half * 0.93, 0)], shade(box, 1.1), shade(box, 0.7))
    pen.box(-half * 1.03, tall - 0.04, half * 2.06, 0.1, shade(box, 0.85))


def dumpster(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a dumpster, as wide and as colorful as a car."""
    paint, half, tall = paint_color(rng), rng.uniform(1.2, 1.9), rng.uniform(1.0, 1.4)
    pen.shadow(half * 2, 0.5, 0.7)
    heap = [
        (-half * 0.9, tall),
        (-half * 0.4, tall + rng.uniform(0.1, 0.4)),
        (half * 0.3, tall + rng.uniform(0.1, 0.5)),
        (half * 0.9, tall),
    ]
    pen.polygon(heap, pick(rng, WALLS))
    body = [
        (-half, tall),
        (half, tall),
        (half * 0.99, tall * 0.55),
        (half * 0.66, 0.05),
        (-half * 0.66, 0.05),
        (-half * 0.99, tall * 0.55),
    ]
    pen.gradient(body, shade(paint, 1.08), shade(paint, 0.65))
    pen.box(-half * 1.03, tall - 0.06, half * 2.06, 0.13, shade(paint, 0.8))
    for share in (-0.45, 0.0, 0.45):
        pen.line([(half * share, tall - 0.1), (half * share * 0.9, 0.1)], 0.07, shade(paint, 0.6))


def barrier(pen: Pen, rng: np.random.Generator) -> None:
    half, paint = rng.uniform(0.9, 1.5), pick(rng, [(206, 60, 44), (216, 120, 40), (70, 70, 74)])
    pen.shadow(half * 2.1, 0.35, 0.5)
    for x in (-half * 0.8, half * 0.8):
        pen.line([(x - 0.2, 0), (x, 1.0), (x + 0.2, 0)], 0.05, (90, 92, 94))
    for y in (0.45, 0.8):
        pen.box(-half, y, half * 2, 0.2, (236, 234, 228))
        for x in np.arange(-half, half - 0.2, 0.5):
            pen.polygon([(x, y), (x + 0.22, y), (x + 0.32, y + 0.2), (x + 0.1, y + 0.2)], paint)


def cone(pen: Pen, rng: np.random.Generator) -> None:
    paint = pick(rng, [(222, 96, 36), (206, 62, 40)])
    pen.shadow(0.6, 0.2, 0.6)
    pen.box(-0.25, 0, 0.5, 0.07, shade(paint, 0.6))
    pen.polygon([(-0.18, 0.07), (0.18, 0.07), (0.04, 0.75), (-0.04, 0.75)], paint)
    pen.polygon([(-0.12, 0.32), (0.12, 0.32), (0.08, 0.5), (-0.08, 0.5)], (240, 238, 232))


def street_tree(pen: Pen, rng: np.random.Generator) -> None:
    pen.shadow(1.6, 0.35, 0.5)
    tree(pen, rng, rng.uniform(2.6, 4.6))


SMALL = [trash_can, hydrant, cone, post_box, dog, sign]
SLIM = [lamp_post, sign, traffic_light, street_tree]
LARGE = [
    bench,
    bicycle,
    dog,
    kiosk,
    planter,
    dumpster,
    barrier,
    post_box,
    street_tree,
    trash_can,
    hydrant,
    bicycle,
    dog,
    bench,
]
