"""Settings of the network, and of how images enter it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tlcli.errors import UsageError
from tlcli.settings.checks import at_least, one_of
from tlcli.settings.options import NETWORK, Option

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
FITS = ("crop", "pad", "squash")

SIZE_OPTION = Option(
    help="Side of the network's square input. Larger inputs show finer detail and take longer.",
    metavar="PIXELS",
    panel=NETWORK,
    unset="the backbone's own",
)
INTENSITY_OPTION = Option(
    help="Pixel values that become black and white in grayscale images with more than 8 bits; auto measures them on "
    "the training images.",
    metavar="LO,HI|auto",
    panel=NETWORK,
    unset="0,65535",
)


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
            help="A timm model name, torchvision/alexnet, or lenet5.",
            metavar="NAME",
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
    size: int | None = field(default=None, metadata=SIZE_OPTION)
    fit: str = field(
        default="crop",
        metadata=Option(
            help="How to make an image square: crop its center, pad it, or squash it.",
            metavar="crop|pad|squash",
            panel=NETWORK,
        ),
    )
    intensity: str | None = field(default=None, metadata=INTENSITY_OPTION)
    seed: int = field(
        default=0,
        metadata=Option(help="Seed for random weights, the split, the views, and the training order.", panel=NETWORK),
    )

    def __post_init__(self) -> None:
        one_of("--fit", self.fit, FITS)
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
