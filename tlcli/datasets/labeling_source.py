"""SOURCE of `tlcli label`: images without labels, the rows of `predict`, the findings of `check`, or labeled DATA."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tlcli.datasets.dataset import Dataset, open_dataset
from tlcli.datasets.label_table import path_key
from tlcli.datasets.prediction_inputs import PredictionInputs
from tlcli.datasets.tables.columns import choose_columns
from tlcli.datasets.tables.raw_table import RawTable
from tlcli.datasets.tables.read import load_table
from tlcli.datasets.tables.suffixes import is_table
from tlcli.errors import DataError, UsageError
from tlcli.settings.columns import TableColumns
from tlcli.settings.filters import PathPatterns
from tlcli.storage.files import from_portable_name
from tlcli.storage.urls import Location, is_url, parse_location

PREDICTED = {"path", "label", "confidence", "status"}
"""Columns of the rows of `predict`."""
FOUND = {"kind", "path", "class", "other_class", "score"}
"""Columns of the findings of `check`."""
UNREADABLE = "unreadable"
"""Kind of findings about images that cannot be shown."""
FIRST = ("unknown", "review")
"""Statuses of rows to label first, in this order."""


@dataclass(frozen=True, kw_only=True)
class LabelingSource:
    """The images to label or to review, and what is known about them."""

    paths: Sequence[str]
    classes: tuple[str, ...] = ()
    """Classes that occur in SOURCE."""
    first: Sequence[int] = ()
    """Images to show first, in this order."""
    proposals: dict[int, tuple[str, float | None]] = field(default_factory=dict)
    """Label and confidence that SOURCE proposes, by image."""
    labels: Sequence[str] | None = None
    """The label of each image, to review; None if they have none."""
    dataset: Dataset | None = None
    """The labeled dataset that is reviewed, whose samples are the images; None if SOURCE is not one."""
    unlisted: Sequence[str] = ()
    """Folders that could not be listed, each with the reason."""


def open_labeling_source(
    source: str, stdin: IO[bytes], *, has_classes: bool, filters: PathPatterns, columns: TableColumns
) -> LabelingSource:
    """Find out what SOURCE is, and list its images.

    Args:
        source: An input of `predict`, its rows, the findings of `check`, or DATA of `finetune`.
        stdin: The file to read a list from.
        has_classes: Whether there are classes already: images in class folders then count as unlabeled.
        filters: Drops files by their path.
        columns: Columns of a table; None recognizes common headers.

    Raises:
        DataError: SOURCE does not exist, or has no images.
        UsageError: `columns` has no effect.
    """
    if is_table(parse_location(source)) and not source.startswith("@"):
        table = load_table(parse_location(source))
        names = set(table.names)
        if names >= PREDICTED and not columns.given():
            return _from_predictions(table)
        if names >= FOUND and not columns.given():
            return _from_findings(table)
    dataset = None if has_classes else _labeled(source, filters, columns)
    if dataset is not None:
        return LabelingSource(
            paths=[sample.path for sample in dataset.samples],
            classes=dataset.classes,
            labels=[dataset.classes[sample.label] for sample in dataset.samples],
            dataset=dataset,
        )
    if given := [name for name in columns.given() if name != "--image-column"]:
        raise UsageError(f"{given[0]} has no effect: {source} has no labels to review. Remove the option.")
    image_column = TableColumns(image_column=columns.image_column)
    inputs = PredictionInputs((source,), stdin, None, filters, image_column)
    paths = list({path_key(path): path for path in reversed(list(inputs))}.values())[::-1]
    if not paths:
        raise inputs.no_images()
    return LabelingSource(paths=paths, unlisted=inputs.unlisted)


def _labeled(source: str, filters: PathPatterns, columns: TableColumns) -> Dataset | None:
    try:
        return open_if_labeled(source, filters, columns)
    except DataError as error:
        advice = "To label the images from scratch, give --classes."
        raise DataError(f"{error.message} {advice}", path=error.path) from error


def open_if_labeled(source: str, filters: PathPatterns, columns: TableColumns) -> Dataset | None:
    """Open labeled DATA; None if it has no labels.

    Raises:
        DataError: It has labels, but is not valid.
    """
    if source == "-" or source.startswith("@"):
        return None
    location = parse_location(source)
    try:
        return open_dataset(location, filters=filters, columns=columns)
    except DataError:
        if _looks_labeled(source, location, columns):
            raise
        return None


def _looks_labeled(source: str, location: Location, columns: TableColumns) -> bool:
    """Return whether a table has a column of labels, or a folder has a subfolder for each class and nothing else."""
    if is_table(location):
        try:
            return bool(choose_columns(load_table(location), columns).label)
        except DataError:
            return False
    if not isinstance(location, Path) or not location.is_dir():
        return False
    images = PredictionInputs((source,), io.BytesIO())
    below = [Path(os.path.relpath(path, source)).parts for path in images]
    return len({parts[0] for parts in below}) > 1 and all(len(parts) == 2 for parts in below)


def _from_predictions(table: RawTable) -> LabelingSource:
    """Return the images of the rows of `predict`, each once."""
    columns = (_paths(table), _texts(table, "label"), table.column("confidence"), _texts(table, "status"))
    rows: dict[str, tuple[str, str, float | None, str]] = {}
    for path, label, confidence, status in zip(*columns, strict=True):
        if path:
            rows.setdefault(path_key(path), (path, label.strip(), _number(confidence), status))
    found = list(rows.values())
    return LabelingSource(
        paths=[path for path, *_ in found],
        classes=tuple(sorted({label for _, label, _, _ in found if label})),
        first=[number for status in FIRST for number, row in enumerate(found) if row[3] == status],
        proposals={number: (label, value) for number, (_, label, value, _) in enumerate(found) if label},
    )


def _from_findings(table: RawTable) -> LabelingSource:
    """Review the images of findings, each once, in the order of the findings."""
    kinds, labels, others = (_texts(table, name) for name in ("kind", "class", "other_class"))
    found: dict[str, tuple[str, str]] = {}
    for path, kind, label, other in zip(_paths(table), kinds, labels, others, strict=True):
        if path and kind != UNREADABLE:
            found.setdefault(path, (label, other))
    if not found:
        raise DataError(f"{table.path} has no findings about images that can be shown.", path=table.path)
    proposals: dict[int, tuple[str, float | None]] = {
        number: (other or label, None) for number, (label, other) in enumerate(found.values())
    }
    names = {name for pair in found.values() for name in pair if name}
    return LabelingSource(
        paths=list(found),
        classes=tuple(sorted(names)),
        first=range(len(found)),
        proposals=proposals,
        labels=[label for label, _ in found.values()],
    )


def _paths(table: RawTable) -> list[str]:
    """Return the paths that a command has written: relative to the current folder, or to that of the table."""
    written = [from_portable_name(path) for path in _texts(table, "path")]
    return [path if not path or is_url(path) or os.path.lexists(path) else table.in_folder(path) for path in written]


def _texts(table: RawTable, name: str) -> list[str]:
    return ["" if value is None else str(value) for value in table.column(name)]


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
