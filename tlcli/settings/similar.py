"""Settings of `similar`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import PurePath

from tlcli.errors import UsageError
from tlcli.settings.cache import CacheSettings
from tlcli.settings.check import NO_CACHE_OPTION
from tlcli.settings.checks import at_least
from tlcli.settings.columns import TableColumns
from tlcli.settings.common_options import NETWORK_ARGUMENT, OVERWRITE_OPTION
from tlcli.settings.compute import ComputeSettings
from tlcli.settings.filters import FILTER_OPTIONS, PathPatterns
from tlcli.settings.network import NetworkSettings
from tlcli.settings.options import OUTPUT, Option, OptionGroup

PAGE_SUFFIX = ".html"
SUFFIXES = (".csv", ".jsonl", ".parquet", PAGE_SUFFIX)


@dataclass(frozen=True, kw_only=True)
class SimilarSettings:
    """Settings of `similar`. If `out` is None, the rows are in the result."""

    network: str = field(metadata=NETWORK_ARGUMENT)
    inputs: tuple[str, ...] = field(
        metadata=Option(
            help="The queries: images, folders, tables, tars, @list.txt, or - for a list on standard input.",
            metavar="INPUT...",
            positional=True,
        )
    )
    data: str = field(
        metadata=Option(
            help="Images to search: labeled ones as for finetune, or a folder, table, tar, URL, or @list.txt without "
            "labels.",
            metavar="DATA",
            flag="--in",
        )
    )
    top: int = field(default=10, metadata=Option(help="Report the K nearest images of each query.", metavar="K"))
    out: str | None = field(
        default=None,
        metadata=Option(
            help="File for the rows, or a page that shows the images; - is standard output.",
            metavar="FILE.csv|.jsonl|.parquet|.html|-",
            panel=OUTPUT,
            unset="CSV on standard output; with --json, in the JSON object",
        ),
    )
    filters: PathPatterns = field(default_factory=PathPatterns, metadata=FILTER_OPTIONS)
    """Of the images in `data`."""
    columns: TableColumns = field(
        default_factory=TableColumns,
        metadata=OptionGroup(settings=TableColumns, without=("split_column", "group_column")),
    )
    """Columns of `data`, if it is a table."""
    backbone: NetworkSettings = field(
        default_factory=NetworkSettings, metadata=OptionGroup(settings=NetworkSettings, without=("backbone", "freeze"))
    )
    """Of a backbone; a run has its own."""
    compute: ComputeSettings = field(default_factory=ComputeSettings, metadata=OptionGroup(settings=ComputeSettings))
    cache: CacheSettings = field(
        default_factory=CacheSettings,
        metadata=OptionGroup(settings=CacheSettings, instead={"enabled": NO_CACHE_OPTION}),
    )
    overwrite: bool = field(default=False, metadata=OVERWRITE_OPTION)

    @property
    def wanted(self) -> NetworkSettings:
        """The network whose features are compared."""
        return replace(self.backbone, backbone=self.network)

    def __post_init__(self) -> None:
        at_least("--top", self.top, 1)
        self.wanted.require_fixed("similar")
        if self.backbone.intensity == "auto":
            raise UsageError("--intensity auto measures training images, which similar does not have. Give LO,HI.")
        if not self.network:
            raise UsageError("RUN_OR_BACKBONE is empty; expected the name of a backbone, or the directory of a run.")
        if not self.inputs:
            raise UsageError(
                "INPUT is missing: give images, folders, tables, @list.txt, or - for a list on standard input."
            )
        if not self.data:
            raise UsageError("--in is empty; expected images, a folder, a table, or @list.txt.")
        if self.data == "-" and "-" in self.inputs:
            raise UsageError("INPUT and --in are both -, but standard input is one list. Give one as @list.txt.")
        if self.out in {None, "-"}:
            if self.overwrite:
                raise UsageError("--overwrite has no effect without --out FILE.")
        elif PurePath(self.out or "").suffix.lower() not in SUFFIXES:
            raise UsageError(f"--out is {self.out}; expected a name ending in {', '.join(SUFFIXES)}.")
