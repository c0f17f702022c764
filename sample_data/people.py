"""People of the sample images: small jointed figures that walk, stand, carry bags, and hold umbrellas."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from brush import Color, Pen, Point, circle, paint_color, pick, shade

SKIN: list[Color] = [(238, 200, 172), (214, 164, 128), (176, 122, 86), (124, 82, 58), (86, 58, 44)]
HAIR: list[Color] = [(38, 30, 28), (82, 54, 36), (136, 92, 52), (196, 160, 96), (150, 148, 146), (122, 52, 34)]
TROUSERS: list[Color] = [(50, 62, 92), (44, 44, 50), (122, 108, 86), (84, 88, 94), (92, 70, 58), (180, 170, 150)]


@dataclass(frozen=True)
class Look:
    """Appearance of a person; lengths are fractions of the person's height."""

    skin: Color
    hair: Color
    top: Color
    legs: Color
    shoes: Color
    outfit: str
    style: str
    girth: float


def random_look(rng: np.random.Generator) -> Look:
    return Look(
        skin=pick(rng, SKIN, 6),
        hair=pick(rng, HAIR, 8),
        top=paint_color(rng),
        legs=pick(rng, TROUSERS),
        shoes=pick(rng, [(36, 34, 36), (92, 62, 44), (214, 210, 204), (150, 40, 44)], 10),
        outfit=str(rng.choice(["jacket", "jacket", "shirt", "shirt", "coat", "dress", "shorts"])),
        style=str(rng.choice(["short", "short", "long", "bun", "cap", "hat", "hood"])),
        girth=rng.uniform(0.9, 1.2),
    )


def joint(start: Point, angle: float, length: float) -> Point:
    """Return the other end of a limb that hangs from `start`, rotated forward by `angle`."""
    return start[0] + length * math.sin(angle), start[1] - length * math.cos(angle)


def leg(pen: Pen, look: Look, hip: Point, angles: Point, far: bool) -> None:
    dim = 0.78 if far else 1.0
    bare = look.outfit in {"dress", "shorts"}
    knee = joint(hip, angles[0], 0.25)
    ankle = joint(knee, angles[1], 0.235)
    cloth, skin = shade(look.legs, dim), shade(look.skin, dim)
    toe = (ankle[0] + 0.062 * math.cos(angles[1] * 0.7), ankle[1] - 0.022 + 0.062 * math.sin(angles[1] * 0.7))
    pen.limb((ankle[0] - 0.012, ankle[1] - 0.014), toe, 0.024, 0.017, shade(look.shoes, dim))
    pen.limb(knee, ankle, 0.036 * look.girth, 0.024, skin if bare else cloth)
    pen.limb(hip, knee, 0.055 * look.girth, 0.037 * look.girth, skin if look.outfit == "dress" else cloth)


def arm(pen: Pen, look: Look, shoulder: Point, angles: Point, far: bool) -> Point:
    """Draw an arm and return the position of its hand."""
    dim = 0.76 if far else 0.92
    elbow = joint(shoulder, angles[0], 0.165)
    hand = joint(elbow, angles[1], 0.15)
    sleeve, skin = shade(look.top, dim), shade(look.skin, dim)
    short = look.outfit in {"shirt", "shorts", "dress"}
    pen.disc(*hand, 0.022, skin)
    pen.limb(elbow, hand, 0.026, 0.02, skin if short else sleeve)
    pen.limb(shoulder, elbow, 0.036 * look.girth, 0.028, sleeve)
    return hand


def torso(pen: Pen, look: Look, wide: float) -> None:
    hem = {"coat": 0.36, "dress": 0.31, "jacket": 0.485, "shirt": 0.5, "shorts": 0.5}[look.outfit]
    flare = {"coat": 1.12, "dress": 1.35}.get(look.outfit, 0.95)
    half = wide * look.girth
    right = [(0.035, 0.85), (half * 0.93, 0.815), (half, 0.74), (half * 0.84, 0.62), (half * 0.92, 0.54)]
    right.append((half * flare, hem))
    outline = right + [(-x, y) for x, y in reversed(right)]
    pen.gradient(outline, shade(look.top, 1.1), shade(look.top, 0.82))
    pen.polygon([*[(-x, y) for x, y in right], *[(-x * 0.55, y) for x, y in reversed(right)]], (0, 0, 0), 0.13)
    if look.outfit in {"jacket", "coat"}:
        pen.line([(half * 0.1, 0.84), (half * 0.1, hem + 0.01)], 0.008, shade(look.top, 0.55))
        pen.polygon([(-0.03, 0.85), (0.045, 0.85), (half * 0.12, 0.76)], shade(look.legs, 1.3))
    if look.outfit == "shorts":
        pen.polygon([(-half, 0.52), (half, 0.52), (half * 1.02, 0.38), (-half * 1.02, 0.38)], look.legs)
    if look.outfit in {"shirt", "jacket"}:
        pen.box(-half * 0.86, 0.49, half * 1.72, 0.022, shade(look.legs, 0.7))


def head(pen: Pen, look: Look, front: bool, back: bool) -> None:
    """Draw the head, seen from the front, from behind, or from the side, looking right."""
    middle, r = 0.925, 0.056
    pen.limb((0, 0.83), (0.004, 0.89), 0.026, 0.024, shade(look.skin, 0.85))
    if look.style == "long" and front:
        for x in (-0.05, 0.05):
            pen.limb((x, 0.95), (x * 1.1, 0.83), 0.024, 0.017, shade(look.hair, 0.9))
    elif look.style == "long":
        away = 0.0 if back else -0.018
        fall = [(away - 0.062, 0.94), (away, 0.985), (away + 0.055, 0.94), (away + 0.04, 0.82), (away - 0.058, 0.8)]
        pen.blob(fall, shade(look.hair, 0.9))
    pen.polygon([(x * 0.9, middle + y * 1.16) for x, y in circle(0, 0, r)], look.skin)
    if back:
        pen.polygon([(x * 0.98, 0.932 + y * 1.1) for x, y in circle(0, 0, r)], look.hair)
    elif front:
        for x in (-0.02, 0.02):
            pen.disc(x, 0.926, 0.0065, (40, 32, 30))
        pen.line([(-0.014, 0.893), (0.014, 0.893)], 0.006, shade(look.skin, 0.6))
        pen.blob([(-0.056, 0.93), (-0.04, 0.98), (0, 0.996), (0.042, 0.98), (0.056, 0.93), (0, 0.958)], look.hair)
    else:
        pen.polygon([(0.045, 0.935), (0.066, 0.912), (0.045, 0.908)], look.skin)
        pen.disc(0.031, 0.932, 0.0065, (40, 32, 30))
        cap = [
            (0.044, 0.965),
            (0.01, 0.998),
            (-0.042, 0.98),
            (-0.062, 0.925),
            (-0.04, 0.885),
            (-0.012, 0.93),
            (0.01, 0.955),
        ]
        pen.blob(cap, look.hair)
        pen.disc(-0.008, 0.918, 0.011, shade(look.skin, 0.8))
    if look.style == "bun":
        pen.disc(-0.05 if not (front or back) else 0.0, 0.99, 0.026, shade(look.hair, 0.85))
    brim = shade(look.legs, 1.15)
    if look.style in {"cap", "hat"}:
        pen.blob([(-0.057, 0.952), (-0.045, 0.998), (0, 1.012), (0.045, 0.998), (0.057, 0.952), (0, 0.957)], brim)
        ends = ((-0.09, 0.09) if look.style == "hat" else (0.0, 0.095)) if not back else (-0.05, 0.05)
        pen.line([(ends[0], 0.955), (ends[1], 0.951)], 0.014, shade(brim, 0.8))
    if look.style == "hood":
        pen.blob([(-0.02, 0.84), (-0.075, 0.9), (-0.058, 0.985), (0.0, 1.005), (0.03, 0.97), (-0.02, 0.93)], look.top)


def umbrella(pen: Pen, color: Color, hand: Point) -> None:
    top, half = 1.2, 0.3
    x = hand[0] * 0.6
    pen.line([hand, (x, top)], 0.012, (50, 46, 46))
    ribs = [-1.0, -0.5, 0.0, 0.5, 1.0]
    rim = [(x + half * share, 1.04 - 0.02 * (1 - abs(share))) for share in ribs]
    for i in range(4):
        crown = [(x + half * ribs[j] * 0.62, 1.155 + 0.035 * (1 - abs(ribs[j]))) for j in (i, i + 1)]
        panel = [rim[i], crown[0], (x, top), crown[1], rim[i + 1], ((rim[i][0] + rim[i + 1][0]) / 2, 1.055)]
        pen.polygon(panel, shade(color, 0.78 + 0.12 * i))
    pen.line([(x, top), (x, top + 0.03)], 0.01, (50, 46, 46))


def walking(pen: Pen, look: Look, rng: np.random.Generator, carried: str) -> None:
    """Draw a person seen from the side, in the middle of a step."""
    step = rng.uniform(0.22, 0.52) * rng.choice([-1, 1])
    bend = rng.uniform(0.1, 0.5)
    swing = step * rng.uniform(0.6, 1.3)
    if carried == "backpack":
        pack = [(-0.05, 0.83), (-0.15, 0.81), (-0.175, 0.68), (-0.15, 0.58), (-0.05, 0.58)]
        pen.blob(pack, shade(look.legs, 1.15))
    arm(pen, look, (0.0, 0.795), (swing, swing + bend), far=True)
    knees = (bend, 0.06) if step > 0 else (0.06, bend)
    leg(pen, look, (0.0, 0.51), (-step, -step - knees[0]), far=True)
    leg(pen, look, (0.0, 0.51), (step, step - knees[1]), far=False)
    torso(pen, look, 0.082)
    head(pen, look, front=False, back=False)
    angles = (0.35, 1.9) if carried == "umbrella" else (-swing, -swing + bend)
    hand = arm(pen, look, (0.0, 0.795), angles, far=False)
    carry(pen, look, rng, carried, hand)


def facing(pen: Pen, look: Look, rng: np.random.Generator, carried: str) -> None:
    """Draw a person seen from the front or from behind."""
    back = bool(rng.random() < 0.35)
    wide = 0.115
    apart, out = rng.uniform(0.0, 0.12), rng.uniform(0.08, 0.25)
    leg(pen, look, (-0.052, 0.51), (-apart, -apart * 0.6), far=bool(rng.random() < 0.5))
    leg(pen, look, (0.052, 0.51), (apart, apart * 0.6), far=False)
    arm(pen, look, (-wide * look.girth * 0.95, 0.785), (-out, -out + rng.uniform(0, 0.5)), far=True)
    torso(pen, look, wide)
    head(pen, look, front=not back, back=back)
    if carried == "backpack" and back:
        pen.blob([(-0.075, 0.8), (0.075, 0.8), (0.085, 0.6), (0, 0.57), (-0.085, 0.6)], shade(look.legs, 1.2))
    angles = (0.5, 2.4) if carried == "umbrella" else (out, out - rng.uniform(0, 0.4))
    hand = arm(pen, look, (wide * look.girth * 0.95, 0.785), angles, far=False)
    carry(pen, look, rng, carried, hand)


def carry(pen: Pen, look: Look, rng: np.random.Generator, carried: str, hand: Point) -> None:
    color = paint_color(rng)
    if carried == "bag":
        x, y = hand
        pen.line([(x - 0.03, y - 0.07), (x, y), (x + 0.03, y - 0.07)], 0.008, shade(color, 0.5))
        bag = [(x - 0.06, y - 0.06), (x + 0.06, y - 0.06), (x + 0.068, y - 0.19), (x - 0.068, y - 0.19)]
        pen.gradient(bag, shade(color, 1.1), shade(color, 0.75))
    elif carried == "umbrella":
        umbrella(pen, color, hand)
    elif carried == "backpack":
        pen.line([(-0.02, 0.83), (0.03, 0.74), (-0.02, 0.66)], 0.018, shade(look.legs, 0.9))


def draw_person(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a person standing at the pen's origin."""
    child = rng.random() < 0.12
    height = rng.uniform(1.15, 1.35) if child else rng.uniform(1.58, 1.9)
    carried = str(rng.choice(["nothing", "nothing", "bag", "backpack", "umbrella"], p=[0.3, 0.2, 0.2, 0.17, 0.13]))
    pen.shadow(rng.uniform(0.6, 0.95), 0.22, rng.uniform(0.35, 0.6), rng.uniform(-0.12, 0.12))
    meter = Pen(pen.image, pen.left, pen.top, pen.x_unit * height, pen.y_unit * height)
    pose = walking if rng.random() < 0.6 else facing
    pose(meter, random_look(rng), rng, carried)
