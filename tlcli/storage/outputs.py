"""Outputs at URLs: written on this machine first, and uploaded whole when they are. Torch-free."""

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
from tlcli.storage.locks import Held, locked
from tlcli.storage.publish import os_errors_name
from tlcli.storage.remote import check_bucket, download, listing, remove, upload
from tlcli.storage.urls import Location, Url, default_cache

READ_ONLY_SCHEMES = {"http", "https"}
"""Schemes that nothing is written to."""
LOCK = ".lock"


def check_writable(path: Path) -> None:
    """Find out whether a file can be written, before anything is computed for it, by one without a name beside it.

    Raises:
        OSError: it can't; for who shows errors, which says of `path` what to do.
    """
    with os_errors_name(path), tempfile.TemporaryFile(suffix=".tmp", dir=path.parent):
        pass


def _nothing(_: Iterable[str]) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a command writes, and how it is known again at a URL."""

    option: str
    """What it was named by."""
    last: str = ""
    """Of a folder, the file without which it isn't whole; empty for a file."""
    foreign: Callable[[Iterable[str]], str | None] = _nothing
    """Of a folder, the first of some names that isn't of it, if there is one."""
    wanted: Callable[[str], bool] = bool
    """Of a finished folder, the names that `--resume` looks into."""


@contextlib.contextmanager
def published(
    out: Location, target: Target, report: Reporter, *, overwrite: bool = False, resume: bool | None = None
) -> Iterator[Path]:
    """A path to write to: `out` itself, or where what is for a URL is kept until it is uploaded, at the block's end.

    Args:
        out: Where it goes.
        target: What it is.
        report: Told what happens.
        overwrite: Replace what is at the URL. (What is on this machine is the command's own to guard.)
        resume: Go on with what an earlier command kept; None where the command can't.

    Raises:
        UsageError: something is at the URL already.
        MachineError: it can't be reached or written, or another process is writing it.
    """
    if isinstance(out, Path):
        yield out
        return
    if out.scheme in READ_ONLY_SCHEMES:
        raise UsageError(f"{target.option} {out}: nothing is written to {out.scheme}://. Choose another place.")
    stage = default_cache() / "outputs" / hashlib.sha256(str(out).rstrip("/").encode()).hexdigest()[:32]
    stage.mkdir(parents=True, exist_ok=True)
    made, fetched = stage / "made", stage / "fetched"
    with _alone(stage, out, report):
        shutil.rmtree(fetched, ignore_errors=True)  # of a command that was killed
        if not resume:
            shutil.rmtree(made, ignore_errors=True)
        there = _there(out, target)
        begun = made.is_dir() and any(made.iterdir())
        finished = resume and not begun and bool(there) and target.last in there
        if not finished:
            _refuse(out, there, target, replace=overwrite or bool(resume))
            if resume and not begun:
                report.note(f"{out}: nothing was begun here, so this starts afresh.")
        path = (fetched if finished else made) / out.name
        path.parent.mkdir(exist_ok=True)
        try:
            if finished:  # to be looked at, and never uploaded
                for name in filter(target.wanted, there) if target.last else ("",):
                    download(out / name if name else out, path / name)
            yield path
            if path.parent == made:
                with _kept(resumable=resume is not None):
                    _upload(path, out, there, target, report)
        except BaseException as error:
            replace_path_in_error(error, str(path), str(out))
            if resume is None or path.parent == fetched or not any(made.iterdir()):
                shutil.rmtree(stage, ignore_errors=True)  # what went wrong first is what is told
            raise
        shutil.rmtree(stage, ignore_errors=True)  # else the next one removes it


@contextlib.contextmanager
def _alone(stage: Path, out: Url, report: Reporter) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(stage / LOCK, report, remove=True))
        except Held as error:
            raise MachineError(f"{out} is locked: {error} is writing it. Wait for it to end.", path=out) from error
        yield


@contextlib.contextmanager
def _kept(*, resumable: bool) -> Iterator[None]:
    try:
        yield
    except TlcliError as error:
        if resumable:
            error.add_note("What was made is kept on this machine: repeat the command with --resume to upload it.")
        raise


def _there(out: Url, target: Target) -> set[str]:
    """Names below a URL, none of which leads out of it; "" for a file."""
    try:
        there = set(listing(out))
    except DataError:
        check_bucket(out)
        return set()
    if out_of_it := sorted(name for name in there if name and {"", ".", ".."} & set(name.split("/"))):
        raise UsageError(
            f"{out} holds {out_of_it[0]}, a name that leads out of it, so nothing of it is read or replaced. Choose "
            f"another {target.option}."
        )
    return there


def _refuse(out: Url, there: set[str], target: Target, *, replace: bool) -> None:
    if there and not replace:
        raise UsageError(f"{out} exists. Choose another {target.option}, or replace it with --overwrite.")
    if "" in there and target.last:
        raise UsageError(f"{target.option} {out} is a file; expected a folder.")
    if there and "" not in there and not target.last:
        raise UsageError(f"{target.option} {out} is a folder; expected a file.")
    if foreign := target.foreign(sorted(there)):
        raise UsageError(
            f"{out} holds {foreign}, which tlcli did not write there, so it is not replaced. Choose another "
            f"{target.option}."
        )


def _upload(path: Path, out: Url, there: set[str], target: Target, report: Reporter) -> None:
    """Upload a file; or a folder, its last file last. What it replaces is no whole folder meanwhile."""
    if not target.last:
        upload(path, out)
        return
    files = {str(file.relative_to(path)): file for file in sorted(path.rglob("*")) if file.is_file()}
    last = files.pop(target.last)
    if target.last in there:
        remove(out / target.last)
    with report.task("Upload", len(files) + 1, "files") as advance, ThreadPoolExecutor(CONNECTIONS) as threads:
        for _ in threads.map(lambda name: upload(files[name], out / name), files):
            advance(1)
        upload(last, out / target.last)
        advance(1)
    for name in there - {*files, target.last}:
        remove(out / name)


@contextlib.contextmanager
def published_if(
    out: Location | None, target: Target, report: Reporter, *, overwrite: bool = False, resume: bool | None = None
) -> Iterator[Path | None]:
    """`published`, where something is to be written at all."""
    if out is None:
        yield None
        return
    with published(out, target, report, overwrite=overwrite, resume=resume) as path:
        yield path
