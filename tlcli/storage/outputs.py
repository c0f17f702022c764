"""Outputs at URLs: written on this machine first, and uploaded whole when they are. Torch-free."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tlcli.errors import DataError, MachineError, TlcliError, UsageError, rename
from tlcli.locks import Held, locked
from tlcli.progress import Reporter
from tlcli.settings.shared import default_cache
from tlcli.storage.connection import CONNECTIONS
from tlcli.storage.remote import check_bucket, download, listing, remove, upload
from tlcli.storage.urls import Place, Url

READ_ONLY = {"http", "https"}
"""Schemes that nothing is written to."""
LOCK = ".lock"


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
    out: Place, target: Target, report: Reporter, *, overwrite: bool = False, resume: bool | None = None
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
    if out.scheme in READ_ONLY:
        raise UsageError(f"{target.option} {out}: nothing is written to {out.scheme}://. Choose another place.")
    stage = default_cache() / "outputs" / hashlib.sha256(str(out).rstrip("/").encode()).hexdigest()[:32]
    stage.mkdir(parents=True, exist_ok=True)
    path = stage / out.name
    with _alone(stage, out, report):
        if not resume:
            _clear(stage)
        kept = any(entry.name != LOCK for entry in stage.iterdir())
        there = _there(out)
        finished = bool(there) and (target.last in there)
        if resume and finished and not kept:
            for name in filter(target.wanted, there) if target.last else ("",):
                download(out / name if name else out, path / name)
        else:
            _refuse(out, there, target, replace=overwrite or bool(resume))
            if resume and not kept:
                report.note(f"{out}: nothing was begun here, so this starts afresh.")
            kept = True
        try:
            yield path
            if kept:
                with _kept(resumable=resume is not None):
                    _upload(path, out, there, target, report)
        except BaseException as error:
            rename(error, str(path), str(out))
            if resume is None or all(entry.name == LOCK for entry in stage.iterdir()):
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


def _clear(stage: Path) -> None:
    for entry in stage.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def _there(out: Url) -> set[str]:
    """Names below a URL; "" for a file."""
    try:
        return set(listing(out))
    except DataError:
        check_bucket(out)
        return set()


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
    with report.task("Upload", len(files) + 1) as advance, ThreadPoolExecutor(CONNECTIONS) as threads:
        for _ in threads.map(lambda name: upload(files[name], out / name), files):
            advance(1)
        upload(last, out / target.last)
        advance(1)
    for name in there - {*files, target.last}:
        remove(out / name)


@contextlib.contextmanager
def published_if(
    out: Place | None, target: Target, report: Reporter, *, overwrite: bool = False, resume: bool | None = None
) -> Iterator[Path | None]:
    """`published`, where something is to be written at all."""
    if out is None:
        yield None
        return
    with published(out, target, report, overwrite=overwrite, resume=resume) as path:
        yield path
