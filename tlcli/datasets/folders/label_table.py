"""Find a table with the classes of images that are not in class folders, to name it in a message."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from tlcli.datasets.folders.nodes import Node
from tlcli.datasets.folders.tree import Tree
from tlcli.datasets.tables.columns import choose_columns, choose_image_column
from tlcli.datasets.tables.raw_table import RawTable
from tlcli.datasets.tables.read import load_table, read_table
from tlcli.datasets.tables.suffixes import TABLE_SUFFIXES
from tlcli.errors import DataError, TlcliError
from tlcli.settings.columns import TableColumns
from tlcli.storage.files import portable_name
from tlcli.storage.urls import parse_location

MAX_TABLES = 5
"""Number of tables that are tried."""


def describe_label_table(tree: Tree, node: Node) -> str:
    """Return a sentence about a table beside the images that lists their classes; empty if there is none.

    Tables in DATA and in its folders are tried. One that can be read as DATA is preferred.

    Args:
        tree: The folder DATA.
        node: The same folder, walked.
    """
    tables = [
        path
        for folder in (node, *node.with_images())
        for name, path in sorted(tree.entries(folder.below).files.items())
        if name.lower().endswith(TABLE_SUFFIXES) and not name.startswith(".") and "submission" not in name.lower()
    ]
    tables.sort(key=lambda path: not any(word in Path(path).stem.lower() for word in ("train", "label", "class")))
    reasons = {}
    for path in tables[:MAX_TABLES]:
        shown, options = portable_name(path), ""
        try:
            table = load_table(parse_location(path))
            columns = _guess_columns(table)
            options = "".join(f" {option} {shlex.quote(name)}" for option, name in columns.given().items())
            images = read_table(table.path, columns)
        except TlcliError as error:
            reasons[shown] = f" with{options}" * bool(options), error.message
        else:
            return (
                f"The table {shown} lists {len(images):,} images and their classes. Pass it: "
                f"{shlex.quote(shown)}{options}."
            )
    if not reasons:
        return ""
    shown, (options, reason) = next(iter(reasons.items()))
    return f"{shown} may list the classes. Pass it instead of the folder{options} once it can be read: {reason}"


def _guess_columns(table: RawTable) -> TableColumns:
    """Return the label column if it has no common header, but is the only other one whose values repeat.

    Raises:
        DataError: The table has no column of images.
    """
    image = choose_image_column(table, TableColumns())
    with contextlib.suppress(DataError):
        choose_columns(table, TableColumns())
        return TableColumns()
    found = []
    for name in table.names:
        values = table.column(name)
        if name != image and 1 < len(set(map(str, values))) <= len(values) / 2:
            found.append(name)
    return TableColumns(label_column=found[0]) if len(found) == 1 else TableColumns()
