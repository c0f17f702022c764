"""Settings of `check`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlcli.errors import UsageError
from tlcli.settings.cache import CacheSettings
from tlcli.settings.columns import COLUMN_OPTIONS, TableColumns
from tlcli.settings.common_options import CORRECTIONS_OPTION, DATA_ARGUMENT, OVERWRITE_OPTION
from tlcli.settings.compute import ComputeSettings
from tlcli.settings.filters import FILTER_OPTIONS, PathPatterns
from tlcli.settings.grouping import GROUP_BY_OPTION
from tlcli.settings.network import NetworkSettings
from tlcli.settings.options import CACHE, OUTPUT, Option, OptionGroup
from tlcli.storage.urls import Location, parse_location

NO_CACHE_OPTION = Option(help="Write nothing to the cache.", flag="--no-cache", panel=CACHE, negated=True)


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """Settings of `check`."""

    data: Location = field(metadata=DATA_ARGUMENT)
    out: Location | None = field(
        default=None,
        metadata=Option(
            help="Also write all findings to this file, one per row.",
            metavar="FILE.csv",
            panel=OUTPUT,
            parse=parse_location,
        ),
    )
    group_by: str | None = field(default=None, metadata=GROUP_BY_OPTION)
    filters: PathPatterns = field(default_factory=PathPatterns, metadata=FILTER_OPTIONS)
    corrections: Location | None = field(default=None, metadata=CORRECTIONS_OPTION)
    network: NetworkSettings = field(
        default_factory=NetworkSettings, metadata=OptionGroup(settings=NetworkSettings, without=("freeze",))
    )
    columns: TableColumns = field(default_factory=TableColumns, metadata=COLUMN_OPTIONS)
    compute: ComputeSettings = field(default_factory=ComputeSettings, metadata=OptionGroup(settings=ComputeSettings))
    cache: CacheSettings = field(
        default_factory=CacheSettings,
        metadata=OptionGroup(settings=CacheSettings, instead={"enabled": NO_CACHE_OPTION}),
    )
    overwrite: bool = field(default=False, metadata=OVERWRITE_OPTION)

    def __post_init__(self) -> None:
        self.network.require_fixed("check")
        if self.network.freeze != "all":
            raise UsageError(
                f"--freeze is {self.network.freeze!r}; expected all: check needs the features before the head."
            )
        if self.overwrite and self.out is None:
            raise UsageError("--overwrite has no effect without --out FILE.csv: check writes no other file.")
        if self.out is not None and self.out.suffix.lower() != ".csv":
            raise UsageError(f"--out is {self.out}; expected a name ending in .csv.")
