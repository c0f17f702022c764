"""Settings of `predict`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlcli.errors import UsageError
from tlcli.settings.checks import at_least
from tlcli.settings.class_values import ClassValues, parse_class_values
from tlcli.settings.columns import PATH_COLUMN_OPTIONS, TableColumns
from tlcli.settings.common_options import OVERWRITE_OPTION, RESUME_OPTION, RUN_ARGUMENT
from tlcli.settings.compute import ComputeSettings
from tlcli.settings.filters import FILTER_OPTIONS, PathPatterns
from tlcli.settings.machines import CLUSTER_OPTIONS, SHARD_OPTION, ClusterSettings, Shard, check_machines
from tlcli.settings.options import OUTPUT, Option, OptionGroup
from tlcli.storage.urls import Location, parse_location

DEFAULT_EXPLAIN_LIMIT = 50
DEFAULT_UNKNOWN_RATE = 0.01

ROWS_PANEL = "Rows"
WHY_PANEL = "Why"


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """Settings of `predict`. If `out` is None, the rows are in the result."""

    run: Location = field(metadata=RUN_ARGUMENT)
    inputs: tuple[str, ...] = field(
        metadata=Option(
            help="Images, folders, tables, tars, @list.txt, or - for a list on standard input.",
            metavar="INPUT...",
            positional=True,
        )
    )
    filters: PathPatterns = field(default_factory=PathPatterns, metadata=FILTER_OPTIONS)
    out: str | None = field(
        default=None,
        metadata=Option(
            help="File for the rows; - is standard output.",
            metavar="FILE.csv|.jsonl|.parquet|-",
            panel=OUTPUT,
            unset="CSV on standard output; with --json, in the JSON object",
        ),
    )
    top: int = field(
        default=1,
        metadata=Option(help="Report the K most likely classes of each image.", metavar="K", panel=ROWS_PANEL),
    )
    probabilities: bool = field(
        default=False, metadata=Option(help="Add a column p:CLASS for each class.", panel=ROWS_PANEL)
    )
    min_confidence: float | None = field(
        default=None,
        metadata=Option(
            help="Set the status of rows with a confidence below P, in [0, 1], to review.",
            metavar="P",
            panel=ROWS_PANEL,
        ),
    )
    target_precision: tuple[str, ...] = field(
        default=(),
        metadata=Option(
            help="Set the status to review for as few rows as needed so that at least this share, in (0, 1), of the "
            "others with each label is right; CLASS=P is for one class. May be repeated.",
            metavar="P|CLASS=P",
            panel=ROWS_PANEL,
        ),
    )
    sets: float | None = field(
        default=None,
        metadata=Option(
            help="Add a column set with the classes that contain the true one with this probability, in (0, 1).",
            metavar="COVERAGE",
            panel=ROWS_PANEL,
        ),
    )
    unknown_rate: float | None = field(
        default=None,
        metadata=Option(
            help="Set the status of images unlike the training images to unknown, so that about this share, in [0, 1), "
            "of images of the known kind is flagged; 0 flags none.",
            metavar="R",
            panel=ROWS_PANEL,
            unset=f"{DEFAULT_UNKNOWN_RATE}, if the run can tell",
        ),
    )
    explain: Location | None = field(
        default=None,
        metadata=Option(
            help="Also write images to this folder, showing which regions support the predicted class (Grad-CAM).",
            metavar="DIR",
            panel=WHY_PANEL,
            parse=parse_location,
        ),
    )
    explain_limit: int | None = field(
        default=None,
        metadata=Option(
            help="Explain the first N readable images.", metavar="N", panel=WHY_PANEL, unset=str(DEFAULT_EXPLAIN_LIMIT)
        ),
    )
    columns: TableColumns = field(default_factory=TableColumns, metadata=PATH_COLUMN_OPTIONS)
    """Columns of the inputs that are tables."""
    compute: ComputeSettings = field(
        default_factory=ComputeSettings, metadata=OptionGroup(settings=ComputeSettings, without=("precision",))
    )
    shard: Shard | None = field(default=None, metadata=SHARD_OPTION)
    cluster: ClusterSettings | None = field(default=None, metadata=CLUSTER_OPTIONS)
    """Predict on this Ray cluster, with `out` a folder for the parts; None predicts in this process."""
    resume: bool = field(default=False, metadata=RESUME_OPTION)
    overwrite: bool = field(default=False, metadata=OVERWRITE_OPTION)

    @property
    def target_precisions(self) -> ClassValues:
        """The values of `target_precision`."""
        return parse_class_values("--target-precision", self.target_precision, expected="a precision such as 0.98")

    def __post_init__(self) -> None:
        at_least("--top", self.top, 1)
        self._check_promises()
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise UsageError(f"--min-confidence is {self.min_confidence}; expected 0 to 1.")
        if self.unknown_rate is not None and not 0 <= self.unknown_rate < 1:
            raise UsageError(f"--unknown-rate is {self.unknown_rate}; expected 0 or more, and less than 1.")
        if not self.inputs:
            raise UsageError(
                "INPUT is missing: give images, folders, tables, @list.txt, or - for a list on standard input."
            )
        if self.overwrite and self.resume:
            raise UsageError("--overwrite and --resume cannot be combined: use --overwrite to start over, or --resume.")
        if self.out in {None, "-"}:
            if self.resume:
                raise UsageError("--resume has no effect without --out FILE.")
            if self.overwrite and self.explain is None:
                raise UsageError("--overwrite has no effect without --out FILE.")
        at_least("--explain-limit", self.explain_limit, 1)
        if self.explain_limit is not None and self.explain is None:
            raise UsageError("--explain-limit has no effect without --explain DIR.")
        if self.columns.given().keys() - {"--image-column"}:
            raise UsageError("predict reads only the paths of a table: expected no other column than image_column.")
        check_machines(self.shard, self.cluster, self.compute.device)
        if self.cluster is not None and self.out in {None, "-"}:
            raise UsageError("--cluster needs --out DIR, a folder for the parts.")
        if self.cluster is not None and self.explain is not None:
            raise UsageError("--explain has no effect with --cluster. Explain some images in a separate command.")

    def _check_promises(self) -> None:
        targets = self.target_precisions
        for name, value in {"": targets.others, **targets.classes}.items():
            if value is not None and not 0 < value < 1:
                option = f"--target-precision {name}=" if name else "--target-precision "
                raise UsageError(f"{option}{value:g}: expected more than 0 and less than 1, such as 0.95.")
        if self.sets is not None and not 0 < self.sets < 1:
            raise UsageError(f"--sets is {self.sets:g}; expected more than 0 and less than 1.")
