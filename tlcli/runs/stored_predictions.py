"""The predictions that a run stores: of images on which the predicting weights were not trained. Torch-free."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlcli.errors import ArtifactError
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter
from tlcli.runs.directory import PREDICTIONS_FILE
from tlcli.runs.run import Run
from tlcli.storage.files import from_portable_name

COLUMNS = ("path", "label", "split", "predicted", "confidence")


@dataclass(frozen=True, kw_only=True)
class StoredPrediction:
    """A row of `predictions.parquet`."""

    path: str
    """Where the image file was in training, or is now, if training used another working directory."""
    label: str
    """The true class."""
    split: str
    """`validation` or `test`."""
    predicted: str
    """The predicted class."""
    confidence: float
    """Calibrated probability of the predicted class."""


def stored_predictions(run: Run, *, workers: int, report: Reporter) -> dict[bytes, StoredPrediction]:
    """Return the stored predictions of a run by the digest of the image; of identical copies, the first.

    Held-out images with an identical copy among the training images are left out.

    Runs of tlcli 0.2 and earlier store no digests. Their images are read again, and left out if they are gone or have
    changed.

    Args:
        run: The run.
        workers: Number of decoder processes.
        report: Receives the progress of reading, and a warning about images that are left out.

    Raises:
        ArtifactError: The predictions are missing, damaged, or not from tlcli.
    """
    table = read_predictions(run)
    rows = [
        StoredPrediction(**row | {"path": _current_path(run, row["path"])}) for row in table.select(COLUMNS).to_pylist()
    ]
    splits = run.splits()
    # Without validation images of its own, the run predicted them out of fold, or was trained on them afterwards.
    held_out = {"test", "validation"} if "validation" in splits.values() else {"test"}
    digests = table["digest"].to_pylist() if "digest" in table.column_names else _digests(run, rows, workers, report)
    found: dict[bytes, StoredPrediction] = {}
    copies = 0
    for digest, row in zip(digests, rows, strict=True):
        if row.split in held_out and splits.get(digest or b"") == "train":
            copies += 1
        elif digest is not None:
            found.setdefault(digest, row)
    if copies:
        images = "image" if copies == 1 else "images"
        report.note(f"{run.directory}: left out {copies:,} held-out {images} with an identical copy in training.")
    return found


def read_predictions(run: Run, *more: str) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Read `predictions.parquet` as an Arrow table, which has at least `COLUMNS` and the columns `more`.

    Raises:
        ArtifactError: The predictions are missing, damaged, or not from tlcli.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = run.directory / PREDICTIONS_FILE
    if PREDICTIONS_FILE not in run.info["files"]:
        raise ArtifactError(f"{run.directory} has no {PREDICTIONS_FILE}. Train again.", path=path)
    try:
        table = pq.read_table(io.BytesIO(run.content(PREDICTIONS_FILE)))
    except pa.ArrowException as error:
        raise ArtifactError(f"{path} is not a readable Parquet file: {error}. Train again.", path=path) from error
    expected = (*COLUMNS, *more)
    if missing := [name for name in expected if name not in table.column_names]:
        raise ArtifactError(f"{path} has no column {missing[0]}; expected {', '.join(expected)}.", path=path)
    return table


def _current_path(run: Run, stored: str) -> str:
    """Return where an image is now. Relative paths begin at a folder above DATA, whose location is recorded."""
    path = from_portable_name(stored)
    data = str(run.info["settings"].get("data") or "")
    if os.path.isabs(path) or os.path.exists(path) or not os.path.isabs(data):  # noqa: PTH110, PTH117
        return path
    return next((str(folder / path) for folder in Path(data).parents if (folder / path).exists()), path)


def _digests(run: Run, rows: list[StoredPrediction], workers: int, report: Reporter) -> list[bytes | None]:
    """Read the images again. A digest is None if the run does not know it."""
    known = run.splits()
    digests: list[bytes | None] = []
    with (
        ImageLoader(DecodeOptions(), workers=workers, report=report) as loader,
        report.task("Match", len(rows)) as advance,
    ):
        for image in loader.load(row.path for row in rows):
            digests.append(image.digest if image.digest in known else None)
            advance(1)
    if lost := digests.count(None):
        report.warn(
            f"{lost:,} of the {len(rows):,} images that {run.directory} held out are no longer at their path (such as "
            f"{rows[digests.index(None)].path}) or have changed, so they are left out."
        )
    return digests
