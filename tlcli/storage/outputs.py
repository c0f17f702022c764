"""Outputs at URLs: written to a local staging folder, and uploaded when complete. Torch-free."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tlcli.errors import DataError, MachineError, TlcliError, UsageError, replace_path_in_error
from tlcli.progress import Reporter
from tlcli.storage.connection import CONNECTIONS
from tlcli.storage.locks import LockHeldError, locked
from tlcli.storage.publish import TEMPORARY_SUFFIX, os_errors_name
from tlcli.storage.remote import check_bucket, download, listing, remove, upload
from tlcli.storage.urls import Location, Url, default_cache

READ_ONLY_SCHEMES = {"http", "https"}
LOCK = ".lock"
"""Name of the lock file in a staging folder."""


def check_writable(path: Path) -> None:
    """Check that a file can be written, before anything is computed for it, by an unnamed file beside it.

    Raises:
        OSError: it cannot be written. The error names `path`.
    """
    with os_errors_name(path), tempfile.TemporaryFile(suffix=TEMPORARY_SUFFIX, dir=path.parent):
        pass


def _no_foreign(_: Iterable[str]) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a command writes, and how to recognize it at a URL."""

    option: str
    """The option that names it, for messages."""
    last: str = ""
    """The file of a folder that is uploaded last: without it, the folder is incomplete. Empty for a file."""
    foreign: Callable[[Iterable[str]], str | None] = _no_foreign
    """Returns the first of some names that does not belong to such a folder, or None."""
    wanted: Callable[[str], bool] = bool
    """Whether `--resume` reads a file of a finished folder."""


@contextlib.contextmanager
def published(
    out: Location, target: Target, report: Reporter, *, overwrite: bool = False, resume: bool | None = None
) -> Iterator[Path]:
    """Yield a local path to write to: `out` itself, or a staging path that is uploaded to the URL `out` at the end.

    Args:
        out: The output, as given by the user.
        target: Kind of output: how to recognize it at a URL, and which file of it completes it.
        report: Receives progress and notes.
        overwrite: Replace what exists at the URL. (For a local path, the command checks that itself.)
        resume: Continue with what an earlier command kept; None if the command does not support it.

    Raises:
        UsageError: something exists at the URL already.
        MachineError: the URL cannot be reached or written, or another process is writing it.
    """
    if isinstance(out, Path):
        yield out
        return
    if out.scheme in READ_ONLY_SCHEMES:
        raise UsageError(f"{target.option} {out}: {out.scheme}:// is read-only. Choose another location.")
    stage = default_cache() / "outputs" / hashlib.sha256(str(out).rstrip("/").encode()).hexdigest()[:32]
    stage.mkdir(parents=True, exist_ok=True)
    made, fetched = stage / "made", stage / "fetched"
    with _locked_stage(stage, out, report):
        shutil.rmtree(fetched, ignore_errors=True)  # left by a killed process
        if not resume:
            shutil.rmtree(made, ignore_errors=True)
        existing = _existing(out, target)
        started = made.is_dir() and any(made.iterdir())
        finished = resume and not started and bool(existing) and target.last in existing
        if not finished:
            _check_replaceable(out, existing, target, replace=overwrite or bool(resume))
            if resume and not started:
                report.note(f"{out}: nothing to resume; starting from the beginning.")
        path = (fetched if finished else made) / out.name
        path.parent.mkdir(exist_ok=True)
        try:
            if finished:  # only to be read; never uploaded
                for name in filter(target.wanted, existing) if target.last else ("",):
                    download(out / name if name else out, path / name)
            yield path
            if path.parent == made:
                with _resume_hint(resumable=resume is not None):
                    _upload(path, out, existing, target, report)
        except BaseException as error:
            replace_path_in_error(error, str(path), str(out))
            if resume is None or path.parent == fetched or not any(made.iterdir()):
                shutil.rmtree(stage, ignore_errors=True)  # report the first error
            raise
        shutil.rmtree(stage, ignore_errors=True)  # if this fails, the next command removes it


@contextlib.contextmanager
def published_if(
    out: Location | None, target: Target, report: Reporter, *, overwrite: bool = False, resume: bool | None = None
) -> Iterator[Path | None]:
    """`published` for an optional output: yields None if `out` is None."""
    if out is None:
        yield None
        return
    with published(out, target, report, overwrite=overwrite, resume=resume) as path:
        yield path


@contextlib.contextmanager
def _locked_stage(stage: Path, out: Url, report: Reporter) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(stage / LOCK, report, remove=True))
        except LockHeldError as error:
            raise MachineError(f"{out} is locked: {error} is writing it. Wait for it to finish.", path=out) from error
        yield


@contextlib.contextmanager
def _resume_hint(*, resumable: bool) -> Iterator[None]:
    try:
        yield
    except TlcliError as error:
        if resumable:
            error.add_note("The output is kept on this machine: repeat the command with --resume to upload it.")
        raise


def _existing(out: Url, target: Target) -> set[str]:
    """Return the names of the objects below a URL, "" for the URL itself. No name may lead outside the URL."""
    try:
        existing = set(listing(out))
    except DataError:
        check_bucket(out)
        return set()
    if escaping := sorted(name for name in existing if name and {"", ".", ".."} & set(name.split("/"))):
        raise UsageError(
            f"{out} contains the name {escaping[0]}, which leads outside of it, so it is neither read nor replaced. "
            f"Choose another {target.option}."
        )
    return existing


def _check_replaceable(out: Url, existing: set[str], target: Target, *, replace: bool) -> None:
    if existing and not replace:
        raise UsageError(f"{out} exists. Choose another {target.option}, or replace it with --overwrite.")
    if "" in existing and target.last:
        raise UsageError(f"{target.option} {out} is a file; expected a folder.")
    if existing and "" not in existing and not target.last:
        raise UsageError(f"{target.option} {out} is a folder; expected a file.")
    if foreign := target.foreign(sorted(existing)):
        raise UsageError(
            f"{out} contains {foreign}, which tlcli did not write there, so it is not replaced. Choose another "
            f"{target.option}."
        )


def _upload(path: Path, out: Url, existing: set[str], target: Target, report: Reporter) -> None:
    """Upload a file, or a folder with its last file last; a folder that is being replaced counts as incomplete."""
    if not target.last:
        upload(path, out)
        return
    files = {str(file.relative_to(path)): file for file in sorted(path.rglob("*")) if file.is_file()}
    last = files.pop(target.last)
    if target.last in existing:
        remove(out / target.last)
    with report.task("Upload", len(files) + 1, "files") as advance, ThreadPoolExecutor(CONNECTIONS) as threads:
        for _ in threads.map(lambda name: upload(files[name], out / name), files):
            advance(1)
        upload(last, out / target.last)
        advance(1)
    for name in existing - {*files, target.last}:
        remove(out / name)
