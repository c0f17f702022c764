"""Settings of `label`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tlcli.errors import UsageError
from tlcli.settings.cache import CacheSettings
from tlcli.settings.check import NO_CACHE_OPTION
from tlcli.settings.checks import port_number
from tlcli.settings.columns import COLUMN_OPTIONS, TableColumns
from tlcli.settings.common_options import LOCAL, SERVER
from tlcli.settings.compute import ComputeSettings
from tlcli.settings.filters import FILTER_OPTIONS, PathPatterns
from tlcli.settings.network import NetworkSettings
from tlcli.settings.options import NETWORK, OUTPUT, Option, OptionGroup

BACKBONE_OPTION = Option(
    help="A timm model name, torchvision/alexnet, or lenet5; or a run, which also proposes labels from the start.",
    metavar="RUN_OR_NAME",
    panel=NETWORK,
)


def class_list(text: str) -> tuple[str, ...]:
    """Split class names at commas. Raises UsageError if one is empty or given twice."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"--classes is {text!r}; expected different names, such as car,bus,bicycle.")
    return names


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Settings of `label`."""

    source: str = field(
        metadata=Option(
            help="Images to label: a folder, table, tar, URL, or @list.txt. Or images to review: labeled ones, rows of "
            "predict, or findings of check.",
            metavar="SOURCE",
            positional=True,
        )
    )
    classes: tuple[str, ...] | None = field(
        default=None,
        metadata=Option(
            help="The classes; more can be added while labeling.",
            metavar="A,B,C",
            unset="those of the labels so far; the page asks for the first",
            parse=class_list,
        ),
    )
    out: Path | None = field(
        default=None,
        metadata=Option(
            help="Table of labels, or of corrections if SOURCE is labeled; an existing one is continued.",
            metavar="FILE.csv",
            panel=OUTPUT,
            unset="labels.csv or corrections.csv",
            parse=Path,
        ),
    )
    host: str = field(
        default=LOCAL,
        metadata=Option(
            help="Address to listen on; other than the default, anybody on the network who has the token can label.",
            metavar="ADDRESS",
            panel=SERVER,
        ),
    )
    port: int = field(
        default=0, metadata=Option(help="Port to listen on; 0 takes any free one.", metavar="P", panel=SERVER)
    )
    browser: bool = field(
        default=True,
        metadata=Option(help="Do not open a browser.", flag="--no-browser", panel=SERVER, negated=True),
    )
    filters: PathPatterns = field(default_factory=PathPatterns, metadata=FILTER_OPTIONS)
    columns: TableColumns = field(default_factory=TableColumns, metadata=COLUMN_OPTIONS)
    network: NetworkSettings = field(
        default_factory=NetworkSettings,
        metadata=OptionGroup(settings=NetworkSettings, without=("freeze",), instead={"backbone": BACKBONE_OPTION}),
    )
    compute: ComputeSettings = field(default_factory=ComputeSettings, metadata=OptionGroup(settings=ComputeSettings))
    cache: CacheSettings = field(
        default_factory=CacheSettings,
        metadata=OptionGroup(settings=CacheSettings, instead={"enabled": NO_CACHE_OPTION}),
    )

    def out_path(self, *, reviews: bool) -> Path:
        """Return where labels or, if labels are reviewed, corrections are written."""
        return self.out or Path("corrections.csv" if reviews else "labels.csv")

    def __post_init__(self) -> None:
        if not self.source:
            raise UsageError("SOURCE is empty; expected images, a folder, a table, or @list.txt.")
        if self.out is not None and self.out.suffix.lower() != ".csv":
            raise UsageError(f"--out is {self.out}; expected a name ending in .csv.")
        port_number("--port", self.port)
        self.network.require_fixed("label")
        if self.network.intensity == "auto":
            raise UsageError("--intensity auto measures training images, which label does not have. Give LO,HI.")
        if self.network.freeze != "all":
            raise UsageError(
                f"--freeze is {self.network.freeze!r}; expected all: label needs the features before the head."
            )
