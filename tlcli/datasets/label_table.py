"""Find the table that gives the classes of images that no folder tells, to name it in a message."""

from __future__ import annotations

import shlex
from pathlib import Path

from tlcli.datasets.folder_nodes import Node
from tlcli.datasets.folder_tree import Tree
from tlcli.datasets.tables import TABLE_SUFFIXES, read_table
from tlcli.errors import TlcliError
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
    for table in tables[:MAX_TABLES]:
        shown = portable_name(table)
        try:
            images = read_table(parse_location(table))
        except TlcliError as error:
            reasons[shown] = error.message
        else:
            return f"The table {shown} lists {len(images):,} images and their classes. Pass it: {shlex.quote(shown)}."
    if not reasons:
        return ""
    table, reason = next(iter(reasons.items()))
    return f"{table} may list the classes; pass it instead of the folder, once it can be read. Now: {reason}"
