"""The folder that workers write predictions into: numbered Parquet files, which appear whole or not at all."""

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
"""What the parts are of. Readers of Parquet folders pass over names that begin so."""

FORMAT = 1
"""Version of it."""

MOST_PARTS = 100_000
"""As many as have names that sort in their order."""

_PART = r"part-\d{5,}\.parquet"
_OTHERS = re.compile(rf"{_PART}|\.{_PART}\.\w+\.tmp")


def part_path(out: Path, number: int) -> Path:
    """The file of a part, counted from 0."""
    return out / f"part-{number:05d}.parquet"


def check_part_folder(out: Path, run: Path, *, replace: bool) -> None:
    """Refuse a folder that can't be written, before anything is computed.

    Args:
        out: The folder.
        run: The run's directory.
        replace: Whether what was predicted there before may be replaced, or gone on with.

    Raises:
        UsageError: it is a file, lies in the run, or holds something.
    """
    if out.suffix.lower() in SUFFIXES:
        raise UsageError(f"--out {out}: with --cluster expected a folder for the parts, not a {out.suffix} file.")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: the folder {out.parent} does not exist. Create it first.")
    check_outside("--out", out, run, "the run")
    _folder(out).check(replace=replace)


@contextlib.contextmanager
def open_part_folder(out: Path, content: dict[str, Any], *, replace: bool, report: Reporter) -> Iterator[None]:
    """Have the folder to ourselves: a new one, or one that was begun for the same `content`.

    Args:
        out: The folder.
        content: All that decides what the parts are.
        replace: Make a new one in any case, in place of what is there.
        report: Told of a file system without locks.

    Raises:
        ArtifactError: it was begun for another content, or is damaged.
        MachineError: another process is writing it.
    """
    if replace or not (out / INDEX).exists():
        with _folder(out).publish(replace=replace) as staging:
            write_json(staging / INDEX, sealed({"format": FORMAT} | content))
    with lock_output(out, report):
        found = read_sealed(out / INDEX, "a folder of predictions", form=FORMAT)
        if changed := sorted(name for name, value in content.items() if found.get(name) != value):
            raise ArtifactError(
                f"{out} was begun with other inputs or options ({', '.join(changed)}). Repeat the command as it was, "
                "or start again with --overwrite.",
                path=out,
            )
        yield


def read_part(path: Path, names: Sequence[str], paths: Sequence[str], report: Reporter) -> RowCounts | None:
    """Count the rows of a part that is there; None where it isn't, or isn't what was written for these images."""
    if not path.exists():
        return None
    tally = RowCounts()
    try:
        rows = list(read_rows(path))
        if [row["path"] for row in rows] != [portable_name(name) for name in paths]:
            raise ValueError("it has other images")
        for row in rows:
            tally.count([row[name] for name in names])
    except (ValueError, KeyError, OSError) as error:  # pyarrow's own are ValueErrors and OSErrors
        report.warn(f"{path} is damaged ({error}); it is made again.")
        return None
    return tally


def _folder(out: Path) -> AtomicFolder:
    return AtomicFolder(path=out, option="--out", writer="tlcli predict --cluster", index=INDEX, others=_OTHERS)
