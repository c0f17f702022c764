"""Where predict writes its rows: a file, through its journal; a stream of CSV; or a list. Torch-free."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from tlcli.errors import UsageError
from tlcli.inference.journal import Journal
from tlcli.inference.row_files import SUFFIXES, PredictionRow, write_csv
from tlcli.progress import Reporter
from tlcli.storage.files import check_new_file, check_outside

Destination = Path | IO[str] | list[dict[str, Any]]
"""A file in the format of its suffix, a stream for CSV, or a list for rows by column name."""

OpenOutput = tuple[Iterable[PredictionRow], Callable[[Sequence[PredictionRow]], None]]
"""The rows that an interrupted command has already written, and a function that writes the next rows."""


def check_output(out: Path, run: Path, inputs: Iterable[str], *, overwrite: bool, resume: bool) -> None:
    """Check that a file of rows can be written, before anything is computed.

    Raises:
        UsageError: The suffix is unknown, or `out` is a folder, an existing file, an input, or inside the run.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {out}: expected a name ending in {', '.join(SUFFIXES)}, or - for standard output.")
    check_outside("--out", out, run, "the run")
    check_new_file("--out", out, replace=overwrite or resume, inputs=[name.removeprefix("@") for name in inputs])


@contextlib.contextmanager
def open_output(
    destination: Destination, names: Sequence[str], signature: dict[str, Any], report: Reporter, *, resume: bool
) -> Iterator[OpenOutput]:
    """Open the destination of the rows. A file appears when the block ends without an exception.

    Args:
        destination: Where the rows go.
        names: The names of the columns.
        signature: Everything that determines the rows; see `Journal`.
        report: Receives warnings about the output.
        resume: Continue an interrupted file.

    Raises:
        ArtifactError: See `Journal`.
        MachineError: See `Journal`.
    """
    if isinstance(destination, Path):
        with Journal(destination, signature, resume=resume, report=report) as journal:
            yield islice(journal.rows(), journal.done), journal.add
            journal.finish(names)
    elif isinstance(destination, list):
        yield (), lambda rows: destination.extend(dict(zip(names, row, strict=True)) for row in rows)
    else:
        write_csv(destination, names, (), header=True)
        yield (), lambda rows: write_csv(destination, names, rows, header=False)
