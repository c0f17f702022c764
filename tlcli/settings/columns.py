"""Settings that name the columns of a table."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field

from tlcli.errors import UsageError
from tlcli.settings.options import TABLES, Option, OptionGroup

NO_COLUMN = "none"
"""Value of `--split-column` and `--group-column` that ignores all columns of this kind."""


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """Which columns of a table to read. None recognizes common headers, regardless of case."""

    image_column: str | None = field(
        default=None,
        metadata=Option(
            help="Column with the paths of the images.",
            metavar="NAME",
            panel=TABLES,
            unset="path, image, file_name, ...",
        ),
    )
    label_column: str | None = field(
        default=None,
        metadata=Option(
            help="Column with the classes.", metavar="NAME", panel=TABLES, unset="label, class, category, target, ..."
        ),
    )
    split_column: str | None = field(
        default=None,
        metadata=Option(
            help="Column with the splits (train, validation, test), or with true for validation if its name is "
            "is_valid; none ignores all of them.",
            metavar="NAME|none",
            panel=TABLES,
            unset="split, subset, is_valid, ...",
        ),
    )
    group_column: str | None = field(
        default=None,
        metadata=Option(
            help="Column with groups, such as patients, which are never divided between splits; none ignores all of "
            "them.",
            metavar="NAME|none",
            panel=TABLES,
            unset="group, patient_id, ...",
        ),
    )

    def __post_init__(self) -> None:
        for option, value in self.given().items():
            if not value.strip():
                raise UsageError(f"{option} is {value!r}; expected the name of a column.")

    def given(self) -> dict[str, str]:
        """Return the values that the user chose, by option."""
        options = ("--image-column", "--label-column", "--split-column", "--group-column")
        return {option: value for option, value in zip(options, astuple(self), strict=True) if value is not None}


COLUMN_OPTIONS = OptionGroup(settings=TableColumns)
PATH_COLUMN_OPTIONS = OptionGroup(settings=TableColumns, without=("label_column", "split_column", "group_column"))
"""For commands that read only the paths of a table."""
