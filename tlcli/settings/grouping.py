"""`--group-by`: which images are never divided between splits or folds."""

from __future__ import annotations

from tlcli.errors import UsageError
from tlcli.settings.columns import NO_COLUMN, TableColumns
from tlcli.settings.options import Option
from tlcli.storage.urls import Location

NO_GROUPS = "none"
"""Value of `--group-by` with which images that look alike form no groups."""

GROUP_BY_OPTION = Option(
    help="Regular expression to search in paths. Images with the same capture (such as a patient) form a group, which "
    "is never divided between splits or folds. Images that look alike form groups as well, unless this is none.",
    metavar="REGEX|none",
)


def group_pattern(group_by: str | None) -> str | None:
    """Return the regular expression of `--group-by`; None if there is none."""
    return None if group_by == NO_GROUPS else group_by


def check_split_options(
    data: Location, group_by: str | None, columns: TableColumns, validation_fraction: float | None = None
) -> None:
    """Check that no option divides DATA that has its own validation images.

    Raises:
        UsageError: an option has no effect.
    """
    for flag, given in (
        ("--validation-fraction", validation_fraction is not None),
        ("--group-by", group_pattern(group_by) is not None),
        ("--group-column", columns.group_column not in {None, NO_COLUMN}),
    ):
        if given:
            raise UsageError(f"{flag} has no effect: {data} has its own validation images. Leave it out.")
