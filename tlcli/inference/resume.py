"""Resuming a prediction that is already finished: check that its rows are what predict would write now. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tlcli.errors import ArtifactError
from tlcli.inference.prediction_sets import join_labels
from tlcli.inference.row_files import PredictionRow, read_rows
from tlcli.inference.rows import RowOptions, row_status
from tlcli.runs.held_out_predictions import DECIMALS
from tlcli.runs.run import Run
from tlcli.storage.files import portable_name
from tlcli.storage.stored import UNKNOWN, stamp
from tlcli.storage.urls import Location


def finished_rows(
    out: Path,
    names: Sequence[str],
    inputs: Iterable[str],
    *,
    options: RowOptions,
    run: Run,
    location: Location,
) -> Iterator[tuple[str, PredictionRow]]:
    """Check and yield the rows of a finished output, each with the path of its image.

    Args:
        out: The output to resume.
        names: The column names that it should have.
        inputs: Paths of the images that its rows should be about.
        options: The options that it should have been written with.
        run: The run that should have predicted it.
        location: Where the run is, as the user gave it; for messages.

    Raises:
        ArtifactError: It was written with other inputs or options, as far as rows and modification times show.
    """
    try:
        written = out.stat().st_mtime_ns
        if datetime.fromisoformat(run.info["created"]).timestamp() * 1e9 > written:
            raise ValueError(f"{location} was trained later")
        for row, path in zip_longest(read_rows(out), inputs):
            if row is None or path is None:
                raise ValueError("it has a different number of images")
            if list(row) != list(names):
                raise ValueError(f"its columns are {', '.join(row)}")
            if row["path"] != portable_name(path):
                raise ValueError(f"it has {row['path']} in place of {path}")
            if _modified(path) > written:
                raise ValueError(f"{row['path']} was changed later")
            numbers = _numbers(row)
            confidence = numbers["confidence"]
            if confidence is not None:
                _check_decisions(row, confidence, numbers.get("novelty"), options, run.classes)
            yield path, list((row | numbers).values())
    except (ValueError, OSError) as error:  # raised above, or because the file is not a table at all
        raise ArtifactError(
            f"{out} was written with other inputs or options ({error}). Choose another --out, or replace it with "
            "--overwrite.",
            path=out,
        ) from error


def _check_decisions(
    row: dict[str, Any], confidence: float, novelty: float | None, options: RowOptions, classes: Sequence[str]
) -> None:
    """Raise a ValueError if the label, the status, or the set cannot be due to this run and these options."""
    if row["label"] not in classes:
        raise ValueError(f"its label {row['label']!r} is not a class of the run")
    if row["status"] != row_status(row["label"], confidence, novelty, options):
        raise ValueError(f"{row['path']} has status {row['status']}")
    if options.set_limit is not None and abs(confidence - options.set_limit) > 10**-DECIMALS:
        expected = confidence > options.set_limit or len(classes) == 1
        if expected != (row["set"] == join_labels([row["label"]])):
            raise ValueError(f"{row['path']} has the set {row['set']}")


def _numbers(row: dict[str, Any]) -> dict[str, float | None]:
    """Return the confidence and the novelty of a row, which are text in CSV; None if its image failed."""
    names = row.keys() & {"confidence", "novelty"}
    return {name: None if row["status"] == "failed" else float(row[name]) for name in names}


def _modified(path: str) -> int:
    """Return the modification time of an image in nanoseconds since 1970; negative if unknown."""
    try:
        return stamp(path).modified
    except (OSError, ValueError):
        return UNKNOWN
