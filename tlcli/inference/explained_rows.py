"""Select the rows that get an explanation, and describe the folder of `--explain`. Torch-free."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tlcli.errors import UsageError
from tlcli.storage.files import check_outside
from tlcli.storage.folders import AtomicFolder

EXPLANATION_INDEX = "explain.jsonl"
EXPLANATION_CARD = re.compile(r"\d{6,}-[\w-]*\.jpg", re.ASCII)
"""Matches the file names of the cards."""


class ExplainedRow(NamedTuple):
    """A row to explain."""

    row: int
    """Number of the row, from 1."""
    path: str
    label: str
    confidence: float


@dataclass
class ExplainedRows:
    """The first rows of a prediction that can be explained, up to a limit."""

    limit: int
    """Largest number of rows to explain."""
    rows: list[ExplainedRow] = field(default_factory=list)
    seen: int = 0
    """Rows offered so far."""
    skipped: int = 0
    """Failed images among the rows offered before the limit was reached."""

    def offer(self, path: str, label: str | None, confidence: float | None) -> None:
        """Take the next row if it can be explained and the limit is not reached.

        Args:
            path: Path of the image.
            label: The predicted class; None or empty if the image failed.
            confidence: Its calibrated probability; None if the image failed.
        """
        self.seen += 1
        if len(self.rows) == self.limit:
            return
        if not label or confidence is None:
            self.skipped += 1
        else:
            self.rows.append(ExplainedRow(self.seen, path, label, confidence))


def card_name(row: ExplainedRow) -> str:
    """Return the file name of a row's card: unique per row, and never leading out of the folder."""
    stem = os.path.splitext(os.path.basename(row.path))[0]  # noqa: PTH119, PTH122 - a path may be any bytes
    return f"{row.row:06d}-{re.sub(r'[^A-Za-z0-9_-]+', '_', stem)[:60]}.jpg"


def explain_folder(out: Path) -> AtomicFolder:
    """Return the folder of cards at `out`."""
    return AtomicFolder(
        path=out,
        option="--explain",
        writer="tlcli predict --explain",
        index=EXPLANATION_INDEX,
        others=EXPLANATION_CARD,
    )


def check_explain(
    out: Path, *, run: Path, rows: Path | None, inputs: Iterable[str], images: Iterable[str], replace: bool
) -> None:
    """Check the folder of `--explain` before anything is computed.

    Args:
        out: The folder for the cards.
        run: The directory of the run that predicts.
        rows: The file of rows; None if rows are not written to a file.
        inputs: INPUT as given on the command line.
        images: Paths of all images of the inputs.
        replace: Whether explanations of an earlier command may be replaced.

    Raises:
        UsageError: `out` lies inside something that is read, or may not be replaced.
    """
    check_outside("--explain", out, run, "the run")
    for name in inputs:
        check_outside("--explain", out, Path(name), "INPUT")
    folder = explain_folder(out)
    folder.check(replace=replace)
    resolved = out.resolve()
    if rows is not None and resolved in rows.resolve().parents:
        raise UsageError(f"--out {rows} is in the folder of --explain, which is replaced as a whole. Choose another.")
    if folder.names():
        sources = (name.removeprefix("@") for names in (inputs, images) for name in names)
        if inside := next((name for name in sources if resolved in _parents(name)), None):
            raise UsageError(f"--explain {out} contains {inside}, which is an input. Choose another folder.")


def _parents(name: str) -> Iterable[Path]:
    try:
        return Path(os.path.realpath(name)).parents
    except ValueError:  # a NUL in the name, which its row reports
        return ()
