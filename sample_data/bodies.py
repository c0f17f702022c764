"""Car bodies of the sample images, as side profiles in meters."""

from __future__ import annotations

from dataclasses import dataclass, field

from brush import Point


@dataclass(frozen=True)
class Body:
    """A car body in meters, with its front to the right.

    The outline runs from the rear bumper over the roof to the front bumper. `glass` lists the segments that are
    windshields, by the index of their first point.
    """

    outline: list[Point]
    glass: tuple[int, ...]
    windows: list[list[Point]]
    axles: tuple[float, float]
    belt: float
    width: float = 1.74
    lean: float = 0.2
    wheel: float = 0.33
    bed: tuple[float, float] | None = None
    doors: list[float] = field(default_factory=list)


SEDAN = Body(
    outline=[
        (-2.12, 0.28),
        (-2.22, 0.55),
        (-2.18, 0.92),
        (-2.0, 1.0),
        (-1.5, 1.02),
        (-0.85, 1.4),
        (-0.3, 1.46),
        (0.2, 1.43),
        (0.98, 0.99),
        (1.6, 0.92),
        (2.05, 0.78),
        (2.2, 0.55),
        (2.14, 0.26),
    ],
    glass=(4, 7),
    windows=[
        [(0.76, 1.0), (0.1, 1.36), (-0.26, 1.38), (-0.26, 0.98)],
        [(-0.34, 0.98), (-0.34, 1.38), (-0.78, 1.33), (-1.3, 1.0)],
    ],
    axles=(-1.32, 1.36),
    belt=0.97,
    doors=[0.8, -0.3, -1.05],
)
HATCHBACK = Body(
    outline=[
        (-1.82, 0.28),
        (-1.92, 0.55),
        (-1.88, 0.95),
        (-1.5, 1.42),
        (-1.1, 1.5),
        (-0.4, 1.54),
        (0.1, 1.5),
        (0.92, 1.02),
        (1.45, 0.94),
        (1.8, 0.78),
        (1.93, 0.55),
        (1.88, 0.26),
    ],
    glass=(2, 6),
    windows=[
        [(0.72, 1.03), (0.05, 1.42), (-0.34, 1.45), (-0.34, 1.0)],
        [(-0.43, 1.0), (-0.43, 1.45), (-1.2, 1.38), (-1.5, 1.04)],
    ],
    axles=(-1.18, 1.22),
    belt=1.0,
    doors=[0.74, -0.39],
)
ESTATE = Body(
    outline=[
        (-2.22, 0.34),
        (-2.32, 0.65),
        (-2.28, 1.1),
        (-2.0, 1.62),
        (-1.6, 1.68),
        (-0.5, 1.72),
        (0.15, 1.68),
        (0.95, 1.14),
        (1.65, 1.06),
        (2.05, 0.92),
        (2.22, 0.62),
        (2.16, 0.32),
    ],
    glass=(2, 6),
    windows=[
        [(0.76, 1.14), (0.1, 1.58), (-0.3, 1.6), (-0.3, 1.1)],
        [(-0.38, 1.1), (-0.38, 1.6), (-1.1, 1.58), (-1.1, 1.1)],
        [(-1.18, 1.1), (-1.18, 1.57), (-1.8, 1.53), (-2.02, 1.12)],
    ],
    axles=(-1.36, 1.36),
    belt=1.1,
    wheel=0.37,
    doors=[0.78, -0.34, -1.14],
)
VAN = Body(
    outline=[
        (-2.36, 0.34),
        (-2.44, 0.8),
        (-2.42, 1.25),
        (-2.36, 1.9),
        (-2.1, 2.02),
        (-0.8, 2.06),
        (0.75, 2.0),
        (1.6, 1.2),
        (2.05, 1.06),
        (2.3, 0.86),
        (2.38, 0.6),
        (2.32, 0.3),
    ],
    glass=(2, 6),
    windows=[[(1.36, 1.2), (0.74, 1.82), (0.28, 1.84), (0.28, 1.14)]],
    axles=(-1.5, 1.5),
    belt=1.15,
    width=1.9,
    lean=0.1,
    wheel=0.36,
    doors=[1.35, 0.22, -0.95],
)
MINIBUS = Body(
    outline=VAN.outline,
    glass=VAN.glass,
    windows=[
        *VAN.windows,
        [(0.18, 1.14), (0.18, 1.84), (-0.95, 1.86), (-0.95, 1.14)],
        [(-1.05, 1.14), (-1.05, 1.86), (-2.2, 1.82), (-2.26, 1.16)],
    ],
    axles=VAN.axles,
    belt=VAN.belt,
    width=VAN.width,
    lean=VAN.lean,
    wheel=VAN.wheel,
    doors=VAN.doors,
)
PICKUP = Body(
    outline=[
        (-2.5, 0.42),
        (-2.58, 0.7),
        (-2.54, 1.04),
        (-2.4, 1.08),
        (-0.66, 1.1),
        (-0.5, 1.66),
        (-0.2, 1.76),
        (0.3, 1.72),
        (0.98, 1.2),
        (1.85, 1.12),
        (2.32, 0.98),
        (2.46, 0.68),
        (2.4, 0.38),
    ],
    glass=(4, 7),
    windows=[[(0.8, 1.2), (0.24, 1.62), (-0.4, 1.62), (-0.46, 1.16)]],
    axles=(-1.5, 1.55),
    belt=1.12,
    width=1.84,
    wheel=0.4,
    bed=(-2.38, -0.7),
    doors=[0.9, -0.52],
)
BODIES = [SEDAN, HATCHBACK, ESTATE, VAN, MINIBUS, PICKUP]
