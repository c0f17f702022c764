"""Which rows of a prediction are explained, and where. Torch-free."""

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

INDEX = "explain.jsonl"
CARD = re.compile(r"\d{6,}-[\w-]*\.jpg", re.ASCII)
"""Names of the cards."""


class Explained(NamedTuple):
    """A row that is to be explained."""

    row: int
    """Its number, from 1."""
    path: str
    label: str
    confidence: float


@dataclass
class ExplainedRows:
    """The first rows of a prediction that can be explained."""

    limit: int
    """How many."""
    rows: list[Explained] = field(default_factory=list)
    seen: int = 0
    """Rows so far."""
    skipped: int = 0
    """Failed images among them, until there were enough."""

    def offer(self, path: str, label: str | None, confidence: float | None) -> None:
        """Consider the next row; without a label where the image failed."""
        self.seen += 1
        if len(self.rows) == self.limit:
            return
        if not label or confidence is None:
            self.skipped += 1
        else:
            self.rows.append(Explained(self.seen, path, label, confidence))


def card_name(row: Explained) -> str:
    """The file of a row's card: no two rows share one, and none leaves its folder."""
    stem = os.path.splitext(os.path.basename(row.path))[0]  # noqa: PTH119, PTH122 - a path may be any bytes
    return f"{row.row:06d}-{re.sub(r'[^A-Za-z0-9_-]+', '_', stem)[:60]}.jpg"


def explain_folder(out: Path) -> AtomicFolder:
    """The folder at `out`."""
    return AtomicFolder(path=out, option="--explain", writer="tlcli predict --explain", index=INDEX, others=CARD)


def check_explain(
    out: Path, *, run: Path, rows: Path | None, inputs: Iterable[str], images: Iterable[str], replace: bool
) -> None:
    """Refuse what can't be explained, or not there, before anything is computed.

    Args:
        out: The folder for the cards.
        run: The run's directory.
        rows: The file of the rows; None where they go elsewhere.
        inputs: As typed.
        images: All of the inputs' images.
        replace: Whether what an earlier command explained there may go.

    Raises:
        UsageError: `out` lies where something is read, or may not be replaced.
    """
    check_outside("--explain", out, run, "the run")
    for name in inputs:
        check_outside("--explain", out, Path(name), "INPUT")
    folder = explain_folder(out)
    folder.check(replace=replace)
    there = out.resolve()
    if rows is not None and there in rows.resolve().parents:
        raise UsageError(f"--out {rows} lies in the folder of --explain, which is written as a whole. Choose another.")
    if folder.names():
        read = (name.removeprefix("@") for some in (inputs, images) for name in some)
        if inside := next((name for name in read if there in _parents(name)), None):
            raise UsageError(f"--explain {out} holds {inside}, which is read here. Choose another folder.")


def _parents(name: str) -> Iterable[Path]:
    try:
        return Path(os.path.realpath(name)).parents
    except ValueError:  # a NUL in the name, of which a row will tell
        return ()
