"""Settings of `inspect`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlcli.settings.checks import at_least, one_of
from tlcli.settings.columns import COLUMN_OPTIONS, TableColumns
from tlcli.settings.common_options import CORRECTIONS_OPTION, DATA_ARGUMENT, NETWORK_ARGUMENT, OVERWRITE_OPTION
from tlcli.settings.compute import ComputeSettings
from tlcli.settings.filters import FILTER_OPTIONS, PathPatterns
from tlcli.settings.network import FITS, INTENSITY_OPTION, SIZE_OPTION, intensity_range
from tlcli.settings.options import NETWORK, OUTPUT, Option, OptionGroup
from tlcli.storage.urls import Location, parse_location


@dataclass(frozen=True, kw_only=True)
class InspectSettings:
    """Settings of `inspect`. Those of the network apply to a backbone; a run has its own."""

    network: str = field(metadata=NETWORK_ARGUMENT)
    data: Location = field(metadata=DATA_ARGUMENT)
    filters: PathPatterns = field(default_factory=PathPatterns, metadata=FILTER_OPTIONS)
    corrections: Location | None = field(default=None, metadata=CORRECTIONS_OPTION)
    layers: tuple[str, ...] = field(
        default=(),
        metadata=Option(
            help="Number or name of a layer (see tlcli layers). Repeatable.",
            metavar="NAME",
            flag="--layer",
            unset="five, from first to last",
        ),
    )
    units: int = field(
        default=9, metadata=Option(help="Units to show per layer; the most selective are chosen.", metavar="N")
    )
    out: Location | None = field(
        default=None,
        metadata=Option(
            help="Folder to write.",
            metavar="DIR",
            panel=OUTPUT,
            unset="inspect/NAME, after the run or backbone",
            parse=parse_location,
        ),
    )
    weights: str | None = field(
        default=None,
        metadata=Option(
            help="Weights of a backbone: pretrained, none (random), or a .safetensors or .pth file.",
            metavar="pretrained|none|FILE",
            panel=NETWORK,
            unset="pretrained",
        ),
    )
    size: int | None = field(default=None, metadata=SIZE_OPTION)
    fit: str | None = field(
        default=None,
        metadata=Option(
            help="How to make an image square for a backbone: crop its center, pad it, or squash it.",
            metavar="crop|pad|squash",
            panel=NETWORK,
            unset="crop",
        ),
    )
    intensity: str | None = field(default=None, metadata=INTENSITY_OPTION)
    columns: TableColumns = field(default_factory=TableColumns, metadata=COLUMN_OPTIONS)
    compute: ComputeSettings = field(
        default_factory=ComputeSettings, metadata=OptionGroup(settings=ComputeSettings, without=("precision", "engine"))
    )
    overwrite: bool = field(default=False, metadata=OVERWRITE_OPTION)

    def __post_init__(self) -> None:
        at_least("--units", self.units, 1)
        at_least("--size", self.size, 8)
        intensity_range(self.intensity)
        if self.fit is not None:
            one_of("--fit", self.fit, FITS)
