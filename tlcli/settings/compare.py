"""Settings of `compare`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tlcli.errors import UsageError
from tlcli.settings.checks import one_of
from tlcli.settings.columns import COLUMN_OPTIONS, TableColumns
from tlcli.settings.common_options import CORRECTIONS_OPTION, DATA_ARGUMENT, OVERWRITE_OPTION, RUN_ARGUMENT
from tlcli.settings.compute import ComputeSettings
from tlcli.settings.filters import FILTER_OPTIONS, PathPatterns
from tlcli.settings.options import OUTPUT, Option, OptionGroup
from tlcli.storage.urls import Location, parse_location


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Settings of `compare`."""

    run_a: Location = field(metadata={**RUN_ARGUMENT, "metavar": "RUN_A"})
    run_b: Location = field(metadata={**RUN_ARGUMENT, "metavar": "RUN_B", "help": "The run to compare it with."})
    data: Location | None = field(
        default=None,
        metadata={**DATA_ARGUMENT, "metavar": "[DATA]", "unset": "the images that both runs held out"},
    )
    split: str | None = field(
        default=None,
        metadata=Option(
            help="Images to compare on. Images that one of the runs was trained on are always left out.",
            metavar="train|validation|test|all",
            unset="test if there are any, else all",
        ),
    )
    filters: PathPatterns = field(default_factory=PathPatterns, metadata=FILTER_OPTIONS)
    corrections: Location | None = field(default=None, metadata=CORRECTIONS_OPTION)
    columns: TableColumns = field(default_factory=TableColumns, metadata=COLUMN_OPTIONS)
    compute: ComputeSettings = field(
        default_factory=ComputeSettings, metadata=OptionGroup(settings=ComputeSettings, without=("precision",))
    )
    out: Location | None = field(
        default=None,
        metadata=Option(
            help="Also write a page with the images that only one of the runs predicts correctly.",
            metavar="FILE.html",
            panel=OUTPUT,
            parse=parse_location,
        ),
    )
    overwrite: bool = field(default=False, metadata=OVERWRITE_OPTION)

    def __post_init__(self) -> None:
        if self.split is not None:
            one_of("--split", self.split, ("train", "validation", "test", "all"))
        if self.overwrite and self.out is None:
            raise UsageError("--overwrite has no effect without --out FILE.html: compare writes no other file.")
        if self.out is not None and self.out.suffix.lower() != ".html":
            raise UsageError(f"--out is {self.out}; expected a name ending in .html.")
        if self.data is None:
            self._check_without_data()

    def _check_without_data(self) -> None:
        """Raise UsageError for options that have no effect on stored predictions."""
        if self.split == "train":
            raise UsageError("--split train needs DATA: runs store no predictions of training images.")
        given = {
            "--include and --exclude": self.filters != PathPatterns(),
            "--corrections": self.corrections is not None,
            "--device, --engine, and --batch-size": replace(self.compute, workers=None) != ComputeSettings(),
            " and ".join(self.columns.given()): bool(self.columns.given()),
        }
        if unused := [options for options, used in given.items() if used]:
            raise UsageError(
                f"{unused[0]} would have no effect without DATA: the predictions that the runs stored are compared. "
                "Remove the options, or pass DATA."
            )
