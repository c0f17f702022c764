"""The output folder of `predict --cluster`: numbered Parquet files, each complete or absent."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tlcli.errors import ArtifactError, UsageError
from tlcli.inference.row_files import SUFFIXES, read_rows
from tlcli.inference.rows import RowCounts
from tlcli.progress import Reporter
from tlcli.storage.files import check_outside, portable_name, read_sealed, sealed, write_json
from tlcli.storage.folders import AtomicFolder
from tlcli.storage.locks import lock_output

INDEX = "_parts.json"
"""What the parts depend on. Readers of Parquet folders ignore names that start with an underscore."""

FORMAT = 1
"""Version of `INDEX`."""

MAX_PARTS = 100_000
"""Number of parts whose names sort in the order of their numbers."""

_PART = r"part-\d{5,}\.parquet"
_OTHERS = re.compile(rf"{_PART}|\.{_PART}\.\w+\.tmp")


def part_path(out: Path, number: int) -> Path:
    """Return the file of a part, numbered from 0."""
    return out / f"part-{number:05d}.parquet"


def check_part_folder(out: Path, run: Path, *, replace: bool) -> None:
    """Check that the folder can be written, before anything is computed.

    Args:
        out: The folder that parts will be written to.
        run: The run's directory.
        replace: Whether earlier predictions in it may be replaced or resumed.

    Raises:
        UsageError: it is a file, is inside the run, or is not empty.
    """
    if out.suffix.lower() in SUFFIXES:
        raise UsageError(f"--out {out}: expected a folder for the parts with --cluster, not a {out.suffix} file.")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: the folder {out.parent} does not exist. Create it first.")
    check_outside("--out", out, run, "the run")
    _folder(out).check(replace=replace)


@contextlib.contextmanager
def open_part_folder(out: Path, content: dict[str, Any], *, replace: bool, report: Reporter) -> Iterator[None]:
    """Lock the folder: a new one, or one that was started for the same `content`.

    Args:
        out: The folder to write parts into.
        content: Everything that the parts depend on.
        replace: Replace an existing folder by a new one.
        report: Receives a warning if the file system has no locks.

    Raises:
        ArtifactError: it was started for another content, or is damaged.
        MachineError: another process is writing it.
    """
    if replace or not (out / INDEX).exists():
        with _folder(out).publish(replace=replace) as staging:
            write_json(staging / INDEX, sealed({"format": FORMAT} | content))
    with lock_output(out, report):
        found = read_sealed(out / INDEX, "a folder of predictions", form=FORMAT)
        if changed := sorted(name for name, value in content.items() if found.get(name) != value):
            raise ArtifactError(
                f"{out} was started with different inputs or options ({', '.join(changed)}). Repeat the original "
                "command, or start over with --overwrite.",
                path=out,
            )
        yield


def read_part(path: Path, names: Sequence[str], paths: Sequence[str], report: Reporter) -> RowCounts | None:
    """Count the rows of a part. Return None if it is missing, damaged, or was not written for these images."""
    if not path.exists():
        return None
    counts = RowCounts()
    try:
        rows = list(read_rows(path))
        if [row["path"] for row in rows] != [portable_name(name) for name in paths]:
            raise ValueError("its images differ")
        for row in rows:
            counts.count([row[name] for name in names])
    except (ValueError, KeyError, OSError) as error:  # pyarrow's own are ValueErrors and OSErrors
        report.warn(f"{path} is damaged ({error}); it is computed again.")
        return None
    return counts


def _folder(out: Path) -> AtomicFolder:
    return AtomicFolder(path=out, option="--out", writer="tlcli predict --cluster", index=INDEX, others=_OTHERS)
