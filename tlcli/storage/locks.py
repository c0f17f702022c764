"""Lock files that are released when their process ends, with a fallback for file systems without locks. Torch-free."""

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

LOCKS_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""Errors of flock on file systems without locks, such as some network drives."""

_warned_devices: set[int] = set()
"""Devices without locks that this process has warned about."""


class LockHeldError(Exception):
    """Another process holds the lock. The text names the process if it is known."""


@contextlib.contextmanager
def locked(
    path: Path, report: Reporter, *, wait: str | None = None, remove: bool = False, shared: bool = False
) -> Iterator[bool]:
    """Hold a lock on the file `path`, which is created if it is missing; its folder must exist.

    Args:
        path: The lock file. It contains the ID of the process that holds the lock, for people.
        report: Receives a warning before waiting, and if the file system has no locks.
        wait: Warning to show, after the name of the other process, before waiting for it. Empty: wait without a
            warning. None: do not wait.
        remove: Remove the file at the end.
        shared: Allow other holders that share it, too.

    Yields:
        Whether the lock is held; False on a file system without locks, where the caller must be safe without it.

    Raises:
        LockHeldError: another process holds it, and `wait` is None.
    """
    descriptor, held = _acquire(path, report, wait, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        with contextlib.suppress(OSError):  # the process ID is only informative
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield held
    finally:
        if remove:
            with contextlib.suppress(OSError):  # a leftover lock file does no harm
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
        except LockHeldError as error:
            raise MachineError(f"{path} is locked: {error} is writing it. Wait for it to finish.", path=path) from error
        yield held


def _acquire(path: Path, report: Reporter, wait: str | None, kind: int) -> tuple[int, bool]:
    """Open and lock the file. Return its descriptor and whether it is locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            held = _flock(descriptor, path, report, wait, kind)
            if not held or _is_at(descriptor, path):
                return descriptor, held
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the previous holder removed the file; lock the one that exists now


def _flock(descriptor: int, path: Path, report: Reporter, wait: str | None, kind: int) -> bool:
    """Lock an open file. Return False on a file system without locks."""
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            number = os.pread(descriptor, 20, 0).decode("ascii", "replace")
            holder = f"process {number}" if number.isdigit() else "another tlcli"
            if wait is None:
                raise LockHeldError(holder) from error
            if wait:
                report.warn(f"{holder} {wait}")
            fcntl.flock(descriptor, kind)
    except OSError as error:
        if error.errno not in LOCKS_UNSUPPORTED:
            raise
        device = os.fstat(descriptor).st_dev
        if device not in _warned_devices:
            _warned_devices.add(device)
            report.warn(
                f"the file system of {path.parent} does not support locks ({error.strerror}). Do not run two tlcli "
                "processes that write there at the same time: results stay correct, but work is repeated or refused."
            )
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
