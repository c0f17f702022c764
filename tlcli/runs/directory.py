"""The directory of a run while it is written: new, resumed, or replacing another run.

`run.json` is written last: a directory that contains it is a finished run. A directory with `.unfinished` and without
`run.json` is an unfinished run.
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
from tlcli.storage.outputs import Target
from tlcli.storage.publish import (
    TEMPORARY_SUFFIX,
    os_errors_name,
    remove_directory,
    remove_temporary_files,
    replace_directory,
    replaced_path,
    restore_directory,
    staging_path,
    sync_directory,
)
from tlcli.storage.urls import Location, is_url

RUN_FILE = "run.json"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
SPLITS_FILE = "splits.parquet"
PREDICTIONS_FILE = "predictions.parquet"
ONNX_FILE = "model.onnx"
"""The complete network, from pixels to logits, for prediction without torch. Not in every run."""
NOVELTY_FILE = "novelty.safetensors"
"""What tells known from unknown images. Not in every run, and in none of version 0.1 or 0.2."""
FILES = (
    RUN_FILE,
    WEIGHTS_FILE,
    CONFIG_FILE,
    SPLITS_FILE,
    ONNX_FILE,
    PREDICTIONS_FILE,
    NOVELTY_FILE,
    "metrics.jsonl",
    "report.html",
)
"""All files of a run. A directory that contains anything else is never deleted."""
RUN_OUTPUT = Target(
    option="--out", last=RUN_FILE, foreign=lambda names: next((name for name in names if name not in FILES), None)
)
"""How a run is published at a URL."""
UNFINISHED = ".unfinished"
"""Marks the directory of a run that is being written."""
CHECKPOINTS = "checkpoint"
"""The folder of checkpoints in an unfinished run."""


def is_run(name: str) -> bool:
    """Return whether a name is a run directory rather than a backbone."""
    if is_url(name):
        return True
    path = Path(name)
    return (path / RUN_FILE).exists() or (path / UNFINISHED).exists()


def unfinished_run(out: Path) -> Path | None:
    """Return the directory of an unfinished run for `out` that has checkpoints to resume from, if there is one."""
    for directory in (staging_path(out), out):
        if _is_unfinished(directory) and (directory / CHECKPOINTS).is_dir():
            return directory
    return None


def unfinished_job(out: Path) -> str | None:
    """Return the `job` that started the unfinished run for `out` (see `new_run`); None if there is none."""
    found = [directory for directory in (staging_path(out), out) if _is_unfinished(directory)]
    return (found[0] / UNFINISHED).read_text("utf8") if found else None


def _is_unfinished(directory: Path) -> bool:
    return (directory / UNFINISHED).exists() and not (directory / RUN_FILE).exists()


@contextlib.contextmanager
def new_run(
    out: Path, *, overwrite: bool, resume: bool = False, report: Reporter | None = None, job: str = ""
) -> Iterator[Path]:
    """Yield a directory to write a run into, which becomes `out` at the end of the block.

    A run that is overwritten stays intact until the new one is complete. If the block raises, a directory with
    checkpoints is kept for resuming, and one without is removed.

    Args:
        out: The run's final directory.
        overwrite: Replace an existing run.
        resume: Continue an unfinished run if it has checkpoints; otherwise like `overwrite`.
        report: Receives a warning if the file system has no locks.
        job: Name of the job that writes it, for `unfinished_job`.

    Raises:
        UsageError: `out` exists and may not be replaced, or is not a run.
        MachineError: another process is writing it.
    """
    with lock_output(out, report or Silent()):
        _finish_replacement(out)
        _check_replaceable(out, overwrite=overwrite or resume)
        directory = unfinished_run(out) if resume else None
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
                error.add_note(_how_to_resume(out, checkpoints))
            elif directory != out or not (out / RUN_FILE).exists():  # without locks, another may have finished there
                shutil.rmtree(directory, ignore_errors=True)  # report the first error
            raise
        if directory != out:
            replace_directory(directory, out)
        _tidy(out)


def _how_to_resume(out: Path, checkpoints: Path) -> str:
    if any(checkpoints.glob("*.safetensors")):
        return f"Training progress is saved: repeat the command with --out {out} --resume."
    return f"Start again with --out {out} --resume; features computed so far are in the cache."


def _tidy(out: Path) -> None:
    """Remove what a finished run no longer needs: the run it replaced, `.unfinished`, and checkpoints."""
    with contextlib.suppress(OSError):  # the run is complete; the next command tries again
        remove_directory(replaced_path(out))
        checkpoints = out / CHECKPOINTS
        names = os.listdir(checkpoints) if checkpoints.is_dir() else ["nothing"]  # noqa: PTH208
        if "origin.json" in names or not names:  # otherwise tlcli did not write the folder
            for name in sorted(names, key="origin.json".__eq__):  # origin.json last: it identifies the folder
                (checkpoints / name).unlink()
            checkpoints.rmdir()
        (out / UNFINISHED).unlink(missing_ok=True)


def recover_run(out: Path) -> None:
    """Finish a replacement that was killed near its end, unless another process is writing the run now."""
    with contextlib.suppress(MachineError):
        _recover(out)


def _recover(out: Path) -> None:
    """`recover_run`, but raise a MachineError if another process is writing the run now."""
    left = [replaced_path(out), staging_path(out) / RUN_FILE, out / CHECKPOINTS, out / UNFINISHED] if out.name else []
    if not any(path.exists() for path in left):
        return
    try:
        with lock_output(out, Silent()):
            _finish_replacement(out)
    except OSError as error:
        if error.errno not in READ_ONLY_ERRNOS:  # a read-only folder has no replacement to finish
            raise


def _finish_replacement(out: Path) -> None:
    """Finish a replacement that was killed before, between or after the renames of `replace_directory`."""
    if not out.name:
        return
    staging = staging_path(out)
    restore_directory(out)
    if (staging / RUN_FILE).exists() and out.is_dir():
        replace_directory(staging, out)
    if (out / RUN_FILE).exists():
        _tidy(out)


def check_run_output(out: Path, *, overwrite: bool) -> None:
    """Check that a run can be written to `out`.

    Raises:
        UsageError: see `new_run`.
        MachineError: another process is writing it.
    """
    _recover(out)
    _check_replaceable(out, overwrite=overwrite)


def _check_replaceable(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; expected a directory for the run.")
    if not out.exists() or not any(out.iterdir()):
        return
    if not overwrite and _is_unfinished(out):
        raise UsageError(f"{out} contains an unfinished run. Resume it with --resume, or replace it with --overwrite.")
    if not overwrite:
        raise UsageError(f"{out} exists. Choose another --out, or replace it with --overwrite.")
    if not (out / RUN_FILE).exists() and not (out / UNFINISHED).exists():
        raise UsageError(f"{out} is not a run of tlcli, so it is not replaced. Choose another --out.")
    known = {*FILES, UNFINISHED, CHECKPOINTS}
    others = sorted(name for name in os.listdir(out) if name not in known and not name.endswith(TEMPORARY_SUFFIX))  # noqa: PTH208
    if others:
        raise UsageError(
            f"{out} contains {others[0]}, which is not part of a run, so it is not replaced. Choose another --out, or "
            "move the file elsewhere."
        )


def free_name(data: Location) -> Path:
    """`runs/<name of data>`, or the first of `-2`, `-3`, ... that does not exist."""
    return next(path for path in _names(data) if not path.exists())


def unfinished_name(data: Location, job: str) -> Path | None:
    """Return the first of the existing names of `free_name` that holds an unfinished run of a job, if there is one."""
    return next((path for path in itertools.takewhile(Path.exists, _names(data)) if unfinished_job(path) == job), None)


def _names(data: Location) -> Iterator[Path]:
    """`runs/<name of data>`, then the same with `-2`, `-3`, ..."""
    if isinstance(data, Path) and data.is_dir():
        name = data.resolve().name
    else:
        name = re.sub(r"\{.*\}", "", data.stem).strip(" -_.")  # braces stand for the numbers of shards
    base = Path("runs") / (name or "run")
    yield base
    for number in itertools.count(2):
        yield base.with_name(f"{base.name}-{number}")
