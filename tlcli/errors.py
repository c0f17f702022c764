"""Errors that a user can cause or fix, and the exit code of each. Torch-free.

A message states what was found, where, what was expected, and what to do. Any exception that is not a `TlcliError` is a
bug in tlcli and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from itertools import islice

SHOWN_REASONS = 3


class TlcliError(Exception):
    """Base class of all errors that are shown to users.

    Args:
        message: One to three sentences.
        path: The file or folder that caused the error, if any.
    """

    exit_code: int = 1
    kind: str = "error"

    def __init__(self, message: str, *, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = None if path is None else os.fspath(path)


def first_reasons(reasons: Iterable[tuple[str, str]]) -> str:
    """Return the first three paths with the reason why each cannot be used, for a message about all of them."""
    found = list(islice(reasons, SHOWN_REASONS + 1))
    shown = [f"{path}: {reason}" for path, reason in found[:SHOWN_REASONS]]
    return "; ".join(shown + ["..."] * (len(found) > SHOWN_REASONS))


def replace_path_in_error(error: BaseException, path: str, name: str) -> None:
    """Replace the staging path `path` with `name`, which it stands for, in an error and its notes."""
    if isinstance(error, TlcliError):
        error.message = error.message.replace(path, name)
        error.path = None if error.path is None else error.path.replace(path, name)
    if notes := getattr(error, "__notes__", None):
        notes[:] = [note.replace(path, name) for note in notes]


class UsageError(TlcliError):
    """The command line or the settings are invalid."""

    exit_code = 2
    kind = "usage"


class DataError(TlcliError):
    """DATA or INPUT is missing or unusable; nothing was changed."""

    exit_code = 4
    kind = "data"


class ArtifactError(TlcliError):
    """A run, cache, checkpoint or weights file is damaged or of the wrong kind; nothing was changed."""

    exit_code = 4
    kind = "artifact"


class MachineError(TlcliError):
    """The environment prevents it: disk full, no permission, no CUDA, out of memory, locked, network needed."""

    exit_code = 5
    kind = "environment"


class Interrupted(TlcliError):
    """Ctrl-C or a termination signal; finished work is saved.

    Args:
        message: How to resume the command.
        exit_code: 130 for an interrupt from the keyboard, 143 for SIGTERM.
    """

    kind = "interrupted"

    def __init__(self, message: str, *, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


READ_ONLY_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS}
"""Errors of the operating system for a location that cannot be written to."""

_REMEDIES = {
    errno.ENOSPC: "the disk is full. Free some space, or choose another location.",
    errno.EDQUOT: "the disk quota is exceeded. Free some space, or choose another location.",
    errno.EACCES: "permission denied. Grant access, or choose another location.",
    errno.EPERM: "operation not permitted. Grant access, or choose another location.",
    errno.EROFS: "the file system is read-only. Choose another location.",
    errno.EIO: "the disk or network drive failed (input/output error). Check it, then run the command again.",
    errno.EMFILE: "too many open files. Raise the limit (ulimit -n), or use fewer --workers.",
    errno.ENFILE: "the system has too many open files. Close some programs.",
    errno.ENOMEM: "out of memory. Use a smaller --batch-size, or fewer --workers.",
    errno.ENOENT: "no such file or folder. Check the path, and whether it was moved or deleted in the meantime.",
    errno.ENOTDIR: "part of this path is a file; expected a folder. Choose another location.",
    errno.EISDIR: "this is a folder; expected a file. Choose another name.",
    errno.EEXIST: "this name already exists. Choose another.",
    errno.EAGAIN: "the system cannot start more processes. Close some programs, or use fewer --workers.",
    errno.ENAMETOOLONG: "the name is too long for this file system. Choose a shorter one.",
    errno.EFBIG: "the file exceeds the size limit. Raise the limit (ulimit -f), or choose another location.",
}

_OUT_OF_MEMORY_MESSAGES = (
    "DefaultCPUAllocator",  # torch on a CPU
    "could not create a primitive",  # oneDNN
    "AllocateRaw",  # ONNX Runtime, as are the next two
    "bad_alloc",
    "Failed to allocate memory",
    "Failed to launch worker thread",  # Arrow
    "failed to map segment",  # the dynamic linker
)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python or of a library means that memory ran out. No library is imported."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch on a GPU
        or any(text in str(error) for text in _OUT_OF_MEMORY_MESSAGES)
    )


def from_os_error(error: OSError) -> MachineError:
    """Convert an error of the operating system into a message with a remedy.

    Raises:
        OSError: `error` itself, if it is not from the operating system.
    """
    if error.errno in {None, errno.EBADF, errno.EFAULT}:  # all others come from a disk, a drive, a driver
        raise error
    remedy = f"{error.strerror}. Check the disk or network drive, or choose another location."
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
    return MachineError(
        where + _REMEDIES.get(error.errno or 0, remedy), path=os.fsdecode(error.filename) if where else None
    )
