"""Settings of `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlcli.settings.checks import one_of
from tlcli.settings.columns import COLUMN_OPTIONS, TableColumns
from tlcli.settings.common_options import DATA_ARGUMENT, RUN_ARGUMENT
from tlcli.settings.compute import ComputeSettings
from tlcli.settings.filters import FILTER_OPTIONS, PathPatterns
from tlcli.settings.options import Option, OptionGroup
from tlcli.storage.urls import Location

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Settings of `evaluate`."""

    run: Location = field(metadata=RUN_ARGUMENT)
    data: Location = field(metadata=DATA_ARGUMENT)
    filters: PathPatterns = field(default_factory=PathPatterns, metadata=FILTER_OPTIONS)
    split: str | None = field(
        default=None,
        metadata=Option(
            help="Images to evaluate on.",
            metavar="train|validation|test|all",
            unset="test if DATA has one, else the images that the run held out, else all",
        ),
    )
    columns: TableColumns = field(default_factory=TableColumns, metadata=COLUMN_OPTIONS)
    compute: ComputeSettings = field(
        default_factory=ComputeSettings, metadata=OptionGroup(settings=ComputeSettings, without=("precision",))
    )

    def __post_init__(self) -> None:
        if self.split is not None:
            one_of("--split", self.split, (*SPLITS, "all"))
