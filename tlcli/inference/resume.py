"""The rows of a prediction that was finished before: whether they are what would be predicted now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import zip_longest
from pathlib import Path

from tlcli.errors import ArtifactError
from tlcli.inference.explained_rows import ExplainedRows
from tlcli.inference.journal import read_output
from tlcli.inference.rows import Tally, status_of
from tlcli.runs.run import Run
from tlcli.settings import PredictSettings
from tlcli.storage.files import portable_name
from tlcli.storage.stored import UNKNOWN, stamp


def count_finished(
    out: Path,
    names: Sequence[str],
    inputs: Iterable[str],
    settings: PredictSettings,
    run: Run,
    tally: Tally,
    selection: ExplainedRows,
) -> None:
    """Count what the rows of a finished output say.

    Args:
        out: The output.
        names: Of the columns it should have.
        inputs: Paths of the images that it should be of.
        settings: What else should have made it.
        run: That should have made it.
        tally: Told of each row.
        selection: Told of each row.

    Raises:
        ArtifactError: it was made otherwise, as far as its rows and times of change show that.
    """
    try:
        written = out.stat().st_mtime_ns
        if datetime.fromisoformat(run.info["created"]).timestamp() * 1e9 > written:
            raise ValueError(f"{settings.run} was trained after that")
        for row, path in zip_longest(read_output(out), inputs):
            if row is None or path is None:
                raise ValueError("another number of images")
            if list(row) != list(names):
                raise ValueError(f"its columns are {', '.join(row)}")
            if row["path"] != portable_name(path):
                raise ValueError(f"{row['path']} where {path} is now")
            if _version(path) > written:
                raise ValueError(f"{row['path']} was changed after that")
            if row["status"] != "failed" and row["status"] != status_of(float(row["confidence"]), settings):
                raise ValueError(f"{row['path']} has status {row['status']}")
            if row["status"] != "failed" and row["label"] not in run.classes:
                raise ValueError(f"the label {row['label']!r}, which the run doesn't know")
            tally.count(list(row.values()))
            selection.offer(path, row["label"], float(row["confidence"]) if row["status"] != "failed" else None)
    except (ValueError, OSError) as error:  # these, or a file that is no table at all
        raise ArtifactError(
            f"{out} was finished with other inputs or options ({error}). Choose another --out, or replace it with "
            "--overwrite.",
            path=out,
        ) from error


def _version(path: str) -> int:
    """When an image was changed, in nanoseconds since 1970; below zero where nobody tells."""
    try:
        return stamp(path)[1]
    except (OSError, ValueError):
        return UNKNOWN
