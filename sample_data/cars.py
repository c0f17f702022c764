"""Cars of the sample images: side profiles, extruded to their width and rotated toward the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from bodies import BODIES, Body
from brush import Color, Pen, Point, circle, mix, paint_color, pick, shade, smooth

GLASS: Color = (58, 72, 86)
TYRE: Color = (28, 28, 31)


@dataclass(frozen=True)
class Turned:
    """A body rotated by `yaw`: a positive yaw shows its front, a negative one its rear."""

    pen: Pen
    body: Body
    yaw: float
    eye: float
    away: float = 9.0

    def half(self, x: float, y: float) -> float:
        """Return half the width of the body, which narrows toward its ends and above the lower edge of its windows."""
        roof = max(top for _, top in self.body.outline)
        longest = max(abs(end) for end, _ in self.body.outline)
        inwards = self.body.lean * max(0.0, (y - self.body.belt) / (roof - self.body.belt))
        ends = 0.16 * max(0.0, (abs(x) / longest - 0.72) / 0.28) ** 2
        return self.body.width / 2 - inwards - ends

    def see(self, x: float, y: float, z: float) -> Point:
        """Project a point of the car to pen coordinates; the camera is `away` meters from its center."""
        right = x * math.cos(self.yaw) - z * math.sin(self.yaw)
        towards = x * math.sin(self.yaw) + z * math.cos(self.yaw)
        scale = self.away / (self.away - towards)
        return right * scale, self.eye + (y - self.eye) * scale

    def side(self, points: list[Point], out: float = 0.0) -> list[Point]:
        """Project points of the near side."""
        return [self.see(x, y, self.half(x, y) + out) for x, y in points]

    def end_x(self, y: float) -> float:
        """Return the x of the visible end, front or rear, at a height."""
        outline = self.body.outline
        end = [outline[-1], outline[-2], outline[-3]] if self.yaw > 0 else outline[:3]
        return float(np.interp(y, [p[1] for p in end], [p[0] for p in end]))

    def on_end(self, left: float, right: float, low: float, high: float) -> list[Point]:
        """Project a patch of the visible end; `left` and `right` are fractions of half the width."""
        corners = ((left, high), (right, high), (right, low), (left, low))
        return [self.see(self.end_x(y), y, self.half(self.end_x(y), y) * z) for z, y in corners]


def area(points: list[Point]) -> float:
    pairs = zip(points, points[1:] + points[:1], strict=True)
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs) / 2


def shell(car: Turned, paint: Color) -> None:
    """Draw the hood, roof, windshields, and ends: the outline extruded to the width of the car."""
    steps = 5
    curve = smooth(car.body.outline, steps, closed=False)
    strips = []
    for i, (a, b) in enumerate(pairwise(curve)):
        ha, hb = car.half(*a), car.half(*b)
        quad = [car.see(*a, ha), car.see(*b, hb), car.see(*b, -hb), car.see(*a, -ha)]
        long = math.hypot(b[0] - a[0], b[1] - a[1]) or 1.0
        light = 0.72 + 0.42 * (b[0] - a[0]) / long
        towards = (a[0] + b[0]) * math.sin(car.yaw)
        glass = i // steps in car.body.glass and i % steps
        inner = [car.see(*a, ha * 0.88), car.see(*b, hb * 0.88), car.see(*b, -hb * 0.88), car.see(*a, -ha * 0.88)]
        strips.append((towards, quad, light, inner if glass else None, i % steps / steps))
    for _, quad, light, pane, share in sorted(strips, key=lambda strip: strip[0]):
        if area(quad) > 0:
            car.pen.polygon(quad, shade(paint, light))
            if pane:
                car.pen.polygon(pane, mix(GLASS, (176, 196, 208), 0.15 + 0.45 * share))


def ends(car: Turned, paint: Color, rng: np.random.Generator) -> None:
    """Draw the lights, grille, bumper, and license plate of the visible end."""
    tall = car.body.belt
    front = car.yaw > 0
    light = pick(rng, [(246, 242, 214)], 6) if front else pick(rng, [(178, 24, 28)], 10)
    low, high = tall * 0.62, tall * (0.77 if front else 0.88)
    pen = car.pen
    if abs(car.yaw) > 0.15:
        pen.polygon(car.on_end(-0.99, 0.99, tall * 0.32, tall * 0.47), shade(paint, 0.5))
        if front:
            pen.polygon(car.on_end(-0.5, 0.5, tall * 0.52, tall * 0.74), (34, 36, 40))
            for y in (0.57, 0.63, 0.69):
                pen.line(car.on_end(-0.46, 0.46, 0, tall * y)[:2], 0.025, (140, 142, 146))
        pen.polygon(car.on_end(-0.26, 0.26, tall * 0.37, tall * 0.5), (232, 230, 214))
        inner = 0.56 if front else 0.68
        pen.polygon(car.on_end(inner, 0.98, low, high), light)
        pen.polygon(car.on_end(-0.98, -inner, low, high), light)
    outline = car.body.outline
    for is_front, x in ((True, outline[-2][0]), (False, outline[1][0])):
        sign = 1 if is_front else -1
        patch = [(x - sign * d, y) for d, y in ((0.02, low), (0.3, low + 0.03), (0.26, high), (0.09, high))]
        color = (244, 238, 208) if is_front else (176, 28, 30)
        pen.polygon(car.side(patch, 0.005), color)
        pen.line(car.side([(x - sign * 0.1, tall * 0.42), (x - sign * 0.45, tall * 0.4)]), 0.06, shade(paint, 0.5))


def flank(car: Turned, paint: Color, rng: np.random.Generator) -> None:
    """Draw the near side: paint, windows, doors with handles, and a mirror."""
    body, pen = car.body, car.pen
    curve = smooth(body.outline, 5, closed=False)
    pen.gradient(car.side(curve), shade(paint, 1.12), shade(paint, 0.62))
    rear, nose = body.outline[1][0] + 0.08, body.outline[-2][0] - 0.12
    pen.line(
        car.side([(rear, body.belt * 0.87), (0, body.belt * 0.9), (nose, body.belt * 0.8)]), 0.03, shade(paint, 1.3)
    )
    sill = [(body.axles[0] + 0.3, 0.42), (body.axles[1] - 0.3, 0.42), (body.axles[1], 0.26), (body.axles[0], 0.26)]
    pen.polygon(car.side(sill), shade(paint, 0.42))
    for pane in body.windows:
        pen.gradient(car.side(pane), mix(GLASS, (190, 208, 220), rng.uniform(0.25, 0.6)), GLASS)
        left, right = min(x for x, _ in pane), max(x for x, _ in pane)
        low, high = min(y for _, y in pane), max(y for _, y in pane)
        x, slant = left + (right - left) * 0.45, 0.2
        streak = [(x, low + 0.03), (x + 0.1, low + 0.03), (x + 0.1 - slant, high - 0.05), (x - slant, high - 0.05)]
        pen.polygon(car.side(streak), (226, 234, 240), 0.35)
    for x in body.doors:
        pen.line(car.side([(x, body.belt), (x - 0.02, 0.42)]), 0.018, shade(paint, 0.5))
    for x in body.doors[1:]:
        pen.line(car.side([(x + 0.12, body.belt * 0.9), (x + 0.3, body.belt * 0.9)]), 0.04, shade(paint, 0.55))
    mirror = max(x for pane in body.windows for x, _ in pane) - 0.12
    px, py = car.see(mirror, body.belt + 0.1, car.half(mirror, body.belt) + 0.1)
    pen.blob(
        [(px - 0.11, py - 0.07), (px + 0.09, py - 0.07), (px + 0.1, py + 0.06), (px - 0.1, py + 0.08)],
        shade(paint, 0.8),
    )


def wheel(car: Turned, x: float, near: bool, spokes: int, rim: Color) -> None:
    """Draw a wheel of the near side, or the visible part of one on the far side."""
    radius = car.body.wheel
    z = (car.half(x, 0.4) - 0.02) * (1 if near else -1)

    def ring(size: float, depth: float) -> list[Point]:
        return [car.see(px, py, depth) for px, py in circle(x, radius, size)]

    if near:
        car.pen.polygon(ring(radius * 1.17, z + 0.02), (20, 20, 24))
    car.pen.polygon(ring(radius, z - 0.2), TYRE)
    car.pen.polygon(ring(radius, z), TYRE)
    if near:
        car.pen.polygon(ring(radius * 0.94, z + 0.01), shade(TYRE, 1.12))
        car.pen.polygon(ring(radius * 0.66, z + 0.01), rim)
        for i in range(spokes):
            angle = 2 * math.pi * (i + 0.3) / spokes
            out = (x + radius * 0.5 * math.cos(angle), radius + radius * 0.5 * math.sin(angle))
            car.pen.polygon([car.see(px, py, z + 0.01) for px, py in circle(*out, radius * 0.11, 10)], shade(rim, 0.4))
        car.pen.polygon(ring(radius * 0.16, z + 0.01), shade(rim, 0.6))


def draw_car(pen: Pen, rng: np.random.Generator, eye: float) -> None:
    """Draw a car centered at the pen's origin, seen by a camera `eye` meters above the ground."""
    body = BODIES[int(rng.choice(len(BODIES), p=[0.26, 0.24, 0.18, 0.1, 0.08, 0.14]))]
    yaw = rng.uniform(-0.12, 0.12) if rng.random() < 0.4 else rng.choice([1, 1, -1]) * rng.uniform(0.3, 0.85)
    car = Turned(pen, body, float(yaw), eye)
    paint, rim = paint_color(rng), pick(rng, [(188, 190, 194), (150, 152, 156), (90, 92, 98)], 8)
    long, half = body.outline[-2][0] + 0.05, body.width / 2 + 0.05
    corners = [(-long, half), (long, half), (long, -half), (-long, -half)]
    foot = [car.see(x, 0, z) for x, z in corners]
    pen.soft(foot, (10, 12, 20), rng.uniform(0.5, 0.8), 0.14)
    spokes = int(rng.integers(4, 8))
    for x in body.axles:
        wheel(car, x, False, spokes, rim)
    pen.polygon([car.see(x * 0.88, 0.24, z * 0.86) for x, z in corners], (18, 18, 22))
    shell(car, paint)
    if body.bed:
        inside = [(x, z) for x in body.bed for z in (0.78, -0.78)]
        quad = [car.see(x, 1.09, z) for x, z in (inside[0], inside[2], inside[3], inside[1])]
        pen.polygon(quad, (40, 40, 44))
    flank(car, paint, rng)
    ends(car, paint, rng)
    for x in body.axles:
        wheel(car, x, True, spokes, rim)
