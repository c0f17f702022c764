"""Settings of the network, and of how images enter it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from tlcli.errors import UsageError
from tlcli.settings.checks import at_least, one_of
from tlcli.settings.common_options import AUTO
from tlcli.settings.options import NETWORK, Option

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
DEFAULT_FIT = "crop"
FITS = ("crop", "pad", "squash")
Side = int | Literal["auto"]

SIZE_OPTION = Option(
    help="Side of the network's square input. Larger inputs show finer detail and take longer.",
    metavar="PIXELS",
    panel=NETWORK,
    unset="the backbone's own",
)
FIT_OPTION = Option(
    help="How to make an image square: crop its center, pad it, or squash it.",
    metavar="crop|pad|squash",
    panel=NETWORK,
    unset="crop",
)
INTENSITY_OPTION = Option(
    help="Pixel values that become black and white in grayscale images with more than 8 bits; auto measures them on "
    "the training images.",
    metavar="LO,HI|auto",
    panel=NETWORK,
    unset="0,65535",
)


def parse_side(text: str) -> Side:
    """Parse the number of pixels of `--size`, or `auto`.

    Raises:
        UsageError: `text` is neither.
    """
    if text == AUTO:
        return AUTO
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--size is {text!r}; expected a number of pixels, such as 288.") from None


def intensity_range(text: str | None) -> tuple[float, float] | None:
    """Parse `LO,HI`; None if the range is not given or, with `auto`, measured later.

    Raises:
        UsageError: `text` is not a valid range.
    """
    if text is None or text == "auto":
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise UsageError(f"--intensity is {text!r}; expected LO,HI with LO below HI, such as 0,4095, or auto.")
    return low, high


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The network, how much of it is frozen, and how images become its input."""

    backbone: str = field(
        default=DEFAULT_BACKBONE,
        metadata=Option(
            help="A timm model name, torchvision/alexnet, lenet5, or a run, whose network is used.",
            metavar="NAME|RUN",
            panel=NETWORK,
        ),
    )
    weights: str = field(
        default="pretrained",
        metadata=Option(
            help="Initial weights: pretrained, none (random), or a .safetensors or .pth file.",
            metavar="pretrained|none|FILE",
            panel=NETWORK,
        ),
    )
    freeze: str = field(
        default="all",
        metadata=Option(
            help="Layers to freeze: all before the softmax head, none, or all up to layer N or LAYER (see tlcli "
            "layers); auto tries several depths.",
            metavar="all|none|auto|N|LAYER",
            panel=NETWORK,
        ),
    )
    size: Side | None = field(default=None, metadata=Option(**SIZE_OPTION, parse=parse_side))
    # None is the default: `crop`, or with `--freeze auto` and pretrained weights, `auto`.
    fit: str | None = field(default=None, metadata=FIT_OPTION)
    intensity: str | None = field(default=None, metadata=INTENSITY_OPTION)
    seed: int = field(
        default=0,
        metadata=Option(help="Seed for random weights, the split, the views, and the training order.", panel=NETWORK),
    )

    def __post_init__(self) -> None:
        if self.fit is not None:
            one_of("--fit", self.fit, (*FITS, AUTO))
        if self.size != AUTO:
            at_least("--size", self.size, 8)
        intensity_range(self.intensity)
        if not self.freeze:
            raise UsageError("--freeze is empty; expected all, none, auto, or the number or name of a layer.")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed is {self.seed}; expected 0 to {2**32 - 1}.")

    @property
    def pretrained(self) -> bool:
        """Whether training starts from weights that were trained before."""
        return self.weights != "none"

    @property
    def input_fit(self) -> str:
        """How images become square: `crop` unless the user chose otherwise."""
        return DEFAULT_FIT if self.fit in {None, AUTO} else str(self.fit)

    @property
    def input_size(self) -> int | None:
        """Side of the input in pixels; None for the backbone's own, unless the user chose otherwise."""
        return self.size if isinstance(self.size, int) else None

    def require_fixed(self, command: str) -> None:
        """Check that nothing is left for `finetune` to choose.

        Raises:
            UsageError: `--backbone`, `--size`, or `--fit` is auto.
        """
        for option, value, example in (
            ("--backbone", self.backbone, DEFAULT_BACKBONE),
            ("--size", self.size, "288"),
            ("--fit", self.fit, "squash"),
        ):
            if value == AUTO:
                raise UsageError(
                    f"{option} auto is an option of finetune, which chooses by training. Give {command} the value that "
                    f"finetune chose, such as {option} {example}."
                )
