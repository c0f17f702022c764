"""The directory of a run while it is written: new, begun and gone on with, or taking the place of another run.

`run.json` is written last, so a directory with it is a finished run, and one with `.unfinished` and without it an
unfinished one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from tlcli.errors import READ_ONLY_ERRNOS, MachineError, UsageError
from tlcli.progress import Reporter, Silent
from tlcli.storage.locks import lock_output
from tlcli.storage.publish import (
    os_errors_name,
    remove_directory,
    remove_temporary_files,
    replace_directory,
    replaced_path,
    restore_directory,
    staging_path,
    sync_directory,
)
from tlcli.storage.urls import Location

RUN_FILE = "run.json"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
SPLITS_FILE = "splits.parquet"
ONNX_FILE = "model.onnx"
"""The whole network, pixels to logits, for predicting without torch; not in every run."""
FILES = (
    RUN_FILE,
    WEIGHTS_FILE,
    CONFIG_FILE,
    SPLITS_FILE,
    ONNX_FILE,
    "metrics.jsonl",
    "predictions.parquet",
    "report.html",
)
"""All that a run consists of; a directory with anything else in it is never deleted."""
UNFINISHED = ".unfinished"
"""Stands in the directory of a run while it is written."""
CHECKPOINTS = "checkpoint"
"""The folder, in an unfinished run, of what its training needs to go on."""


def begun_run(out: Path) -> Path | None:
    """The directory of an unfinished run for `out` with checkpoints to go on from, if there is one."""
    for directory in (staging_path(out), out):
        if _unfinished(directory) and (directory / CHECKPOINTS).is_dir():
            return directory
    return None


def begun_by(out: Path) -> str | None:
    """The job that began the unfinished run for `out`, as `new_run` was told; None where there is none."""
    found = [directory for directory in (staging_path(out), out) if _unfinished(directory)]
    return (found[0] / UNFINISHED).read_text("utf8") if found else None


def _unfinished(directory: Path) -> bool:
    return (directory / UNFINISHED).exists() and not (directory / RUN_FILE).exists()


@contextlib.contextmanager
def new_run(
    out: Path, *, overwrite: bool, resume: bool = False, report: Reporter | None = None, job: str = ""
) -> Iterator[Path]:
    """A directory to write a run into, which is `out` when the block has ended well.

    A run that is overwritten stays whole until the new one is; when the block fails, a directory with checkpoints is
    kept, and one without is removed.

    Args:
        out: The run.
        overwrite: Replace what is there.
        resume: Go on with what was begun, if there are checkpoints; else as with `overwrite`.
        report: Told of a file system without locks.
        job: Who writes it, for `begun_by`.

    Raises:
        UsageError: `out` exists and may not be replaced, or it is something else than a run.
        MachineError: another process is writing it.
    """
    with lock_output(out, report or Silent()):
        _finish_swap(out)
        _refuse(out, overwrite=overwrite or resume)
        directory = begun_run(out) if resume else None
        if directory is None:
            directory = staging_path(out) if out.exists() and any(out.iterdir()) else out
            if directory != out:
                remove_directory(directory)
        marker, checkpoints = directory / UNFINISHED, directory / CHECKPOINTS
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with os_errors_name(out):
                marker.write_text(job, "utf8")
            sync_directory(directory)
            remove_temporary_files(directory)
            yield directory
        except BaseException as error:
            if checkpoints.is_dir():
                error.add_note(_how_to_go_on(out, checkpoints))
            elif directory != out or not (out / RUN_FILE).exists():  # without locks, another may have finished there
                shutil.rmtree(directory, ignore_errors=True)  # what went wrong first is what is told
            raise
        if directory != out:
            replace_directory(directory, out)
        _tidy(out)


def _how_to_go_on(out: Path, checkpoints: Path) -> str:
    if any(checkpoints.glob("*.safetensors")):
        return f"What was trained so far is kept: repeat the command with --out {out} --resume."
    return f"Begin again with --out {out} --resume; features computed so far are in the cache."


def _tidy(out: Path) -> None:
    """Remove what a finished run needs no more: what it replaced, the mark of an unfinished one, checkpoints."""
    with contextlib.suppress(OSError):  # the run is whole; the next command tries again
        remove_directory(replaced_path(out))
        checkpoints = out / CHECKPOINTS
        names = os.listdir(checkpoints) if checkpoints.is_dir() else ["nothing"]  # noqa: PTH208
        if "origin.json" in names or not names:  # else it is somebody else's
            for name in sorted(names, key="origin.json".__eq__):  # last, so that a kill here leaves whose it is
                (checkpoints / name).unlink()
            checkpoints.rmdir()
        (out / UNFINISHED).unlink(missing_ok=True)


def recover(out: Path) -> None:
    """Finish an overwriting that was killed at its very end, unless somebody is writing the run now."""
    with contextlib.suppress(MachineError):
        _recover_alone(out)


def _recover_alone(out: Path) -> None:
    """`recover`, which raises a MachineError where somebody is writing the run now."""
    left = [replaced_path(out), staging_path(out) / RUN_FILE, out / CHECKPOINTS, out / UNFINISHED] if out.name else []
    if not any(path.exists() for path in left):
        return
    try:
        with lock_output(out, Silent()):
            _finish_swap(out)
    except OSError as error:
        if error.errno not in READ_ONLY_ERRNOS:  # there, nobody was killed while overwriting
            raise


def _finish_swap(out: Path) -> None:
    """Before, between or after the renames of `replace_directory`."""
    if not out.name:
        return
    staging = staging_path(out)
    restore_directory(out)
    if (staging / RUN_FILE).exists() and out.is_dir():
        replace_directory(staging, out)
    if (out / RUN_FILE).exists():
        _tidy(out)


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse to write a run where something else is.

    Raises:
        UsageError: see `new_run`.
        MachineError: another process is writing it, so that it is unfinished only now.
    """
    _recover_alone(out)
    _refuse(out, overwrite=overwrite)


def _refuse(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; expected a directory for the run.")
    if not out.exists() or not any(out.iterdir()):
        return
    if not overwrite and _unfinished(out):
        raise UsageError(f"{out} holds an unfinished run. Go on with --resume, or replace it with --overwrite.")
    if not overwrite:
        raise UsageError(f"{out} exists. Choose another --out, or replace it with --overwrite.")
    if not (out / RUN_FILE).exists() and not (out / UNFINISHED).exists():
        raise UsageError(f"{out} is not a run of tlcli, so it is not replaced. Choose another --out.")
    known = {*FILES, UNFINISHED, CHECKPOINTS}
    others = sorted(name for name in os.listdir(out) if name not in known and not name.endswith(".tmp"))  # noqa: PTH208
    if others:
        raise UsageError(
            f"{out} holds {others[0]}, which is no part of a run, so it is not replaced. Choose another --out, or move "
            "that away."
        )


def free_name(data: Location) -> Path:
    """`runs/<name of data>`, or the first of `-2`, `-3`, ... that doesn't exist."""
    return next(path for path in _names(data) if not path.exists())


def begun_name(data: Location, job: str) -> Path | None:
    """The first of these names that holds an unfinished run of a job; None where none does."""
    return next((path for path in itertools.takewhile(Path.exists, _names(data)) if begun_by(path) == job), None)


def _names(data: Location) -> Iterator[Path]:
    """`runs/<name of data>`, and then the same with `-2`, `-3`, ..."""
    if isinstance(data, Path) and data.is_dir():
        name = data.resolve().name
    else:
        name = re.sub(r"\{.*\}", "", data.stem).strip(" -_.")  # braces stand for the numbers of shards
    base = Path("runs") / (name or "run")
    yield base
    for number in itertools.count(2):
        yield base.with_name(f"{base.name}-{number}")
