"""Settings of the augmentation. `images.augment` applies it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from tlcli.errors import UsageError
from tlcli.settings.common_options import AUTO
from tlcli.settings.options import AUGMENTATION, Option, OptionGroup

Shift = int | tuple[int, int, int]


def parse_shift(text: str) -> Shift:
    """Parse `LEVELS` (up to that many either way, at random) or `R,G,B` (exactly these).

    Raises:
        UsageError: `text` is neither.
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
                f"--color-shift is {text!r}; expected whole levels of 255: one number (the maximum of a random shift), "
                "or R,G,B (an exact shift), such as 20,-20,20."
            )


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How much a view may differ from the plain image. Each view draws its amounts at random, up to these limits."""

    rotate: float = field(
        default=0.0,
        metadata=Option(
            help="Rotate by up to this many degrees in either direction.", metavar="DEGREES", panel=AUGMENTATION
        ),
    )
    mirror: bool = field(
        default=False,
        metadata=Option(
            help="Flip horizontally with probability 0.5.", flag="--mirror/--no-mirror", panel=AUGMENTATION
        ),
    )
    flip_vertical: bool = field(
        default=False, metadata=Option(help="Flip vertically with probability 0.5.", panel=AUGMENTATION)
    )
    crop: float = field(
        default=1.0,
        metadata=Option(
            help="Crop to a random box of at least this fraction of the area, such as 0.5.",
            metavar="MIN_SCALE",
            panel=AUGMENTATION,
        ),
    )
    noise: float = field(
        default=0.0,
        metadata=Option(
            help="Add Gaussian noise of this standard deviation, in levels of 255.", metavar="STD", panel=AUGMENTATION
        ),
    )
    color_shift: Shift = field(
        default=0,
        metadata=Option(
            help="Shift each channel by a random amount of up to this many levels of 255, or by exactly R,G,B, such "
            "as 20,-20,20.",
            metavar="LEVELS|R,G,B",
            panel=AUGMENTATION,
            parse=parse_shift,
        ),
    )

    def __post_init__(self) -> None:
        for option, value, low, high in (
            ("--rotate", self.rotate, 0, 180),
            ("--noise", self.noise, 0, 255),
        ):
            if not low <= value <= high:
                raise UsageError(f"{option} is {value}; expected {low} to {high}.")
        if not 0 < self.crop <= 1:
            raise UsageError(f"--crop is {self.crop}; expected more than 0 and at most 1 (a fraction of the area).")
        shifts = self.color_shift if isinstance(self.color_shift, tuple) else (self.color_shift,)
        least = -255 if isinstance(self.color_shift, tuple) else 0
        if any(not least <= shift <= 255 for shift in shifts):
            levels = ",".join(map(str, shifts))
            raise UsageError(f"--color-shift is {levels}; expected levels of at most 255, or three of them as R,G,B.")

    @property
    def enabled(self) -> bool:
        """Whether views differ from the plain image."""
        return self != Augmentation() and self != Augmentation(color_shift=(0, 0, 0))

    def describe(self) -> str:
        """Return a short text such as `mirror, crop 0.5, color shift 20`."""
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
        """Return a JSON object."""
        shift = self.color_shift
        return asdict(self) | {"color_shift": list(shift) if isinstance(shift, tuple) else shift}


PRESETS = {
    "none": Augmentation(),
    "light": Augmentation(mirror=True, crop=0.5, color_shift=10),
    "strong": Augmentation(rotate=15, mirror=True, crop=0.3, noise=8, color_shift=30),
}
FROM_SCRATCH_AUGMENTATION = Augmentation(rotate=15, crop=0.6)
"""For a network with random weights: keeps the class of any image, even of letters, which `light` mirrors."""


def default_augmentation(freeze: str, weights: str) -> Augmentation:
    """Return the augmentation of training if the user chose none.

    Args:
        freeze: As for `--freeze`. With `auto`, the result applies to depths that benefit from augmentation.
        weights: As for `--weights`.
    """
    if freeze in {"auto", "none"} and weights == "none":
        return FROM_SCRATCH_AUGMENTATION
    return PRESETS["light" if freeze == "auto" else "none"]


def choose_augmentation(given: Mapping[str, Any]) -> Augmentation | None:
    """Build the augmentation from the values of a command line: a preset, or the default, with single amounts changed.

    Args:
        given: `preset` and the fields of `Augmentation`, None if not given; also `freeze` and `weights`, which decide
            the default, unless the command has no such options.

    Returns:
        None if no augmentation option is given.

    Raises:
        UsageError: an unknown preset, an amount out of range, or amounts that leave images unchanged.
    """
    preset = given["preset"]
    if preset == AUTO:
        raise UsageError("--augment auto is an option of finetune, which chooses by training. Give light or strong.")
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"--augment is {preset!r}; expected one of {', '.join(PRESETS)}.")
    amounts = {amount.name: given.get(amount.name) for amount in fields(Augmentation)}
    changes: dict[str, Any] = {name: value for name, value in amounts.items() if value is not None}
    if preset is None and not changes:
        return None
    default = default_augmentation(given.get("freeze", "all"), given.get("weights", "pretrained"))
    chosen = replace(PRESETS[preset] if preset else default, **changes)
    if preset is None and not chosen.enabled:
        raise UsageError(
            "these augmentation options leave images unchanged. Remove them, or give --augment light or strong, or an "
            "amount such as --rotate 10."
        )
    return chosen


def choose_augmentation_or_auto(given: Mapping[str, Any]) -> Augmentation | Literal["auto"] | None:
    """Do what `choose_augmentation` does, and return `auto` for `--augment auto`.

    Raises:
        UsageError: a preset is unknown, or an option has no effect.
    """
    if given["preset"] != AUTO:
        return choose_augmentation(given)
    for amount in fields(Augmentation):
        if given.get(amount.name) is not None:
            flag = amount.name.replace("_", "-")
            raise UsageError(f"--{flag} cannot be combined with --augment auto, which chooses it. Remove one of them.")
    return AUTO


def check_views(freeze: str, views: int | None, augmentation: Augmentation | Literal["auto"] | None) -> None:
    """Check that the number of cached views is compatible with the frozen layers and the augmentation.

    Raises:
        UsageError: views that have no effect, or an augmentation that needs views.
    """
    automatic = augmentation == AUTO
    augments = automatic or (isinstance(augmentation, Augmentation) and augmentation.enabled)
    augments_by_default = freeze == "auto" and augmentation is None
    if views is not None and freeze == "none":
        raise UsageError("--views has no effect with --freeze none: only features of frozen layers are cached.")
    if views is not None and not augments and not augments_by_default:
        raise UsageError("--views has no effect without augmentation. Add --augment light, or remove it.")
    if freeze == "all" and augments and views is None and not automatic:
        raise UsageError(
            "with --freeze all, augmentation needs --views K: the head is fitted to K cached views of each image."
        )


AUGMENTATION_OPTIONS = OptionGroup(
    settings=Augmentation,
    build=choose_augmentation,
    extra={
        "preset": Option(
            help="Preset; the options below override individual amounts.",
            metavar="none|light|strong",
            flag="--augment",
            panel=AUGMENTATION,
        )
    },
)
FINETUNE_AUGMENTATION_OPTIONS = OptionGroup(
    settings=Augmentation,
    build=choose_augmentation_or_auto,
    extra={
        "preset": Option(
            help="Preset, which the options below override; auto measures which of them help.",
            metavar="none|light|strong|auto",
            flag="--augment",
            panel=AUGMENTATION,
        )
    },
)
