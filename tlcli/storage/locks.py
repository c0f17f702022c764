"""Locks that end with the process that holds them, also where a file system has none. Torch-free."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from tlcli.errors import MachineError
from tlcli.progress import Reporter
from tlcli.storage.publish import hidden_prefix

WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What flock answers on file systems that have no locks, such as some network drives."""

_warned: set[int] = set()
"""Devices without locks that were told of: once a process is enough."""


class Held(Exception):
    """Another process holds the lock; its text is which, as far as is known."""


@contextlib.contextmanager
def locked(
    path: Path, report: Reporter, *, wait: str | None = None, remove: bool = False, shared: bool = False
) -> Iterator[bool]:
    """Hold the lock of the file `path`, which is made where it isn't there, in a folder that is.

    Args:
        path: The lock's file. It says which process holds it, for people.
        report: Told of waiting, and of a file system without locks.
        wait: What to say while another process holds it, after its name; empty to wait in silence; None to give up.
        remove: Remove the file at the end.
        shared: Others may hold it too, if they share it.

    Yields:
        Whether it is held: not on a file system without locks, where whoever goes on must be safe without.

    Raises:
        Held: another process has it, and `wait` is None.
    """
    descriptor, held = _acquire(path, report, wait, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        with contextlib.suppress(OSError):  # who holds it is said to people only
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield held
    finally:
        if remove:
            with contextlib.suppress(OSError):  # it stands in nobody's way
                path.unlink()
        os.close(descriptor)


@contextlib.contextmanager
def lock_output(path: Path, report: Reporter) -> Iterator[bool]:
    """Keep other processes from writing the file or directory `path`, by a lock file beside it.

    Yields:
        Whether the lock is held; False on a file system without locks.

    Raises:
        MachineError: another process is writing it.
    """
    lock = path.absolute().with_name(f"{hidden_prefix(path.absolute())}lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(locked(lock, report, remove=True))
        except Held as error:
            raise MachineError(f"{path} is locked: {error} is writing it. Wait for it to end.", path=path) from error
        yield held


def _acquire(path: Path, report: Reporter, wait: str | None, kind: int) -> tuple[int, bool]:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            held = _flock(descriptor, path, report, wait, kind)
            if not held or _is_at(descriptor, path):
                return descriptor, held
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever held it has removed the file: others lock the one that is there now


def _flock(descriptor: int, path: Path, report: Reporter, wait: str | None, kind: int) -> bool:
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            number = os.pread(descriptor, 20, 0).decode("ascii", "replace")
            who = f"process {number}" if number.isdigit() else "another tlcli"
            if wait is None:
                raise Held(who) from error
            if wait:
                report.warn(f"{who} {wait}")
            fcntl.flock(descriptor, kind)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        device = os.fstat(descriptor).st_dev
        if device not in _warned:
            _warned.add(device)
            report.warn(
                f"the file system of {path.parent} has no locks ({error.strerror}), so nothing keeps two tlcli from "
                "writing there at the same time. Avoid that: numbers stay right, but work is done twice, or refused."
            )
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
