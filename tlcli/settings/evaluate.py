"""Settings of `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlcli.errors import UsageError
from tlcli.settings.checks import one_of
from tlcli.settings.columns import COLUMN_OPTIONS, TableColumns
from tlcli.settings.common_options import CORRECTIONS_OPTION, DATA_ARGUMENT, OVERWRITE_OPTION, RUN_ARGUMENT
from tlcli.settings.compute import ComputeSettings
from tlcli.settings.filters import FILTER_OPTIONS, PathPatterns
from tlcli.settings.options import OUTPUT, Option, OptionGroup
from tlcli.storage.urls import Location, parse_location

SPLITS = ("train", "validation", "test")
MEASURES = {
    "brightness": "mean luma, 0 to 255",
    "size": "shorter side in pixels",
    "sharpness": "standard deviation of the Laplacian at the network's size, in gray levels",
    "aspect": "width / height",
}
"""Quantities of images that slices can be made by, and their units; see `images.measurements`."""


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Settings of `evaluate`."""

    run: Location = field(metadata=RUN_ARGUMENT)
    data: Location = field(metadata=DATA_ARGUMENT)
    filters: PathPatterns = field(default_factory=PathPatterns, metadata=FILTER_OPTIONS)
    corrections: Location | None = field(default=None, metadata=CORRECTIONS_OPTION)
    split: str | None = field(
        default=None,
        metadata=Option(
            help="Images to evaluate on.",
            metavar="train|validation|test|all",
            unset="test if DATA has one, else the images that the run held out, else all",
        ),
    )
    by: str | None = field(
        default=None,
        metadata=Option(
            help="Also measure the accuracy on slices: by a column of a table, by what the capture group of a regular "
            "expression matches in the paths, or by quarters of a quantity measured on the images.",
            metavar="|".join(["COLUMN", "REGEX", *MEASURES]),
        ),
    )
    columns: TableColumns = field(default_factory=TableColumns, metadata=COLUMN_OPTIONS)
    compute: ComputeSettings = field(
        default_factory=ComputeSettings, metadata=OptionGroup(settings=ComputeSettings, without=("precision",))
    )
    out: Location | None = field(
        default=None,
        metadata=Option(
            help="Also write a page with the slices of --by and the errors of those that are worse.",
            metavar="FILE.html",
            panel=OUTPUT,
            parse=parse_location,
        ),
    )
    overwrite: bool = field(default=False, metadata=OVERWRITE_OPTION)

    def __post_init__(self) -> None:
        self._check_slices()
        if self.split is not None:
            one_of("--split", self.split, (*SPLITS, "all"))

    def _check_slices(self) -> None:
        if self.out is not None and self.by is None:
            raise UsageError("--out has no effect without --by: only slices have a page.")
        if self.overwrite and self.out is None:
            raise UsageError("--overwrite has no effect without --out FILE.html: evaluate writes no other file.")
        if self.out is not None and self.out.suffix.lower() != ".html":
            raise UsageError(f"--out is {self.out}; expected a name ending in .html.")
        if self.by is not None and self.columns.group_column is not None:
            raise UsageError("--group-column has no effect on evaluate. Remove it.")
