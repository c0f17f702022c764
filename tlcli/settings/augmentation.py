"""What augmentation the user chose: the five distortions and their amounts. Torch-free; `images.augment` applies it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from tlcli.errors import UsageError

Shift = int | tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far a view may differ from the plain image. Every amount is drawn anew for each view."""

    rotate: float = 0.0
    """Turn by up to this many degrees either way, in [0, 180]."""
    mirror: bool = False
    """Mirror left and right, half of the time."""
    flip_vertical: bool = False
    """Flip top and bottom, half of the time."""
    crop: float = 1.0
    """Keep a random box of at least this share of the area, in (0, 1]; 1 keeps the whole image."""
    noise: float = 0.0
    """Standard deviation of random noise, in levels of 255."""
    color_shift: Shift = 0
    """Add to each channel its own random amount of up to this many levels; three numbers are added as they are."""

    def __post_init__(self) -> None:
        for option, value, low, high in (
            ("--rotate", self.rotate, 0, 180),
            ("--noise", self.noise, 0, 255),
        ):
            if not low <= value <= high:
                raise UsageError(f"{option} is {value}; expected {low} to {high}.")
        if not 0 < self.crop <= 1:
            raise UsageError(f"--crop is {self.crop}; expected more than 0 and at most 1, the least share of the area.")
        shifts = self.color_shift if isinstance(self.color_shift, tuple) else (self.color_shift,)
        least = -255 if isinstance(self.color_shift, tuple) else 0
        if any(not least <= shift <= 255 for shift in shifts):
            said = ",".join(map(str, shifts))
            raise UsageError(f"--color-shift is {said}; expected levels of at most 255, or three of them as R,G,B.")

    @property
    def enabled(self) -> bool:
        """Whether views differ from the plain image at all."""
        return self != Augmentation() and self != Augmentation(color_shift=(0, 0, 0))

    def describe(self) -> str:
        """In a few words for people, such as `mirror, crop 0.5, color shift 20`."""
        shift = self.color_shift
        parts = [
            f"rotate {self.rotate:g}" if self.rotate else "",
            "mirror" if self.mirror else "",
            "flip" if self.flip_vertical else "",
            f"crop {self.crop:g}" if self.crop < 1 else "",
            f"noise {self.noise:g}" if self.noise else "",
            f"color shift {','.join(map(str, shift)) if isinstance(shift, tuple) else shift}" if shift else "",
        ]
        return ", ".join(part for part in parts if part) or "none"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        shift = self.color_shift
        return asdict(self) | {"color_shift": list(shift) if isinstance(shift, tuple) else shift}


PRESETS = {
    "none": Augmentation(),
    "light": Augmentation(mirror=True, crop=0.5, color_shift=10),
    "strong": Augmentation(rotate=15, mirror=True, crop=0.3, noise=8, color_shift=30),
}
FROM_SCRATCH = Augmentation(rotate=15, crop=0.6)
"""For a network that has seen nothing yet: what changes no class, not even of letters, which `light` mirrors."""


def default_augmentation(freeze: str, weights: str) -> Augmentation:
    """What training does where the user said nothing, and what single amounts change.

    Args:
        freeze: As for `--freeze`. Of `auto` it holds for the depths that aren't cheaper without.
        weights: As for `--weights`.
    """
    if freeze in {"auto", "none"} and weights == "none":
        return FROM_SCRATCH
    return PRESETS["light" if freeze == "auto" else "none"]


def choose_augmentation(
    preset: str | None,
    *,
    rotate: float | None = None,
    mirror: bool | None = None,
    flip_vertical: bool | None = None,
    crop: float | None = None,
    noise: float | None = None,
    color_shift: str | None = None,
    default: Augmentation = PRESETS["none"],
) -> Augmentation | None:
    """A preset with single amounts set otherwise; None where nothing was said at all.

    `default` is what single amounts change where no preset was named.

    Raises:
        UsageError: no such preset, an amount out of its range, or single amounts that distort nothing.
    """
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"--augment is {preset!r}; expected one of {', '.join(PRESETS)}.")
    said = {
        "rotate": rotate,
        "mirror": mirror,
        "flip_vertical": flip_vertical,
        "crop": crop,
        "noise": noise,
        "color_shift": None if color_shift is None else parse_shift(color_shift),
    }
    changes: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    if preset is None and not changes:
        return None
    chosen = replace(PRESETS[preset] if preset else default, **changes)
    if preset is None and not chosen.enabled:
        raise UsageError(
            "these augmentation options distort nothing. Leave them out, or give --augment light or strong, or an "
            "amount such as --rotate 10."
        )
    return chosen


def parse_shift(text: str) -> Shift:
    """`20` is up to 20 levels either way, `20,-20,20` is exactly that.

    Raises:
        UsageError: it is neither.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    match numbers:
        case [levels]:
            return levels
        case [red, green, blue]:
            return (red, green, blue)
        case _:
            raise UsageError(
                f"--color-shift is {text!r}; expected whole levels of 255: one number (up to that much, at random), or "
                "R,G,B (exactly that), such as 20,-20,20."
            )
