"""What can go wrong that a user can cause or mend, and the exit code of each. Torch-free.

A message says what was found, where, what was expected, and what to do. Anything that is not a
`TlcliError` is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
import os


class TlcliError(Exception):
    """Base of every error a user may see.

    Args:
        message: One to three sentences for a person.
        path: The file or folder the message is about, if there is one.
    """

    exit_code: int = 1
    kind: str = "error"

    def __init__(self, message: str, *, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = None if path is None else os.fspath(path)


def replace_path_in_error(error: BaseException, path: str, name: str) -> None:
    """Have an error, and the notes on it, say `name` where they say `path`, which stands for it."""
    if isinstance(error, TlcliError):
        error.message = error.message.replace(path, name)
        error.path = None if error.path is None else error.path.replace(path, name)
    if notes := getattr(error, "__notes__", None):
        notes[:] = [note.replace(path, name) for note in notes]


class UsageError(TlcliError):
    """The command line (or the settings) asks for something that cannot be."""

    exit_code = 2
    kind = "usage"


class DataError(TlcliError):
    """DATA or INPUT is missing or unusable; nothing was changed."""

    exit_code = 4
    kind = "data"


class ArtifactError(TlcliError):
    """A run, cache, checkpoint or weights file is broken or of another kind; nothing was changed."""

    exit_code = 4
    kind = "artifact"


class MachineError(TlcliError):
    """The machine cannot: disk full, no permission, no CUDA, out of memory, locked, network needed."""

    exit_code = 5
    kind = "environment"


class Interrupted(TlcliError):
    """Ctrl-C or a termination signal; what was finished is saved.

    Args:
        message: How to go on.
        exit_code: 130 for an interrupt from the keyboard, 143 for SIGTERM.
    """

    kind = "interrupted"

    def __init__(self, message: str, *, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


READ_ONLY_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS}
"""What the system answers where something may not be written."""

_REMEDIES = {
    errno.ENOSPC: "the disk is full. Make room, or write elsewhere.",
    errno.EDQUOT: "the disk quota is used up. Make room, or write elsewhere.",
    errno.EACCES: "permission denied. Grant access, or choose another place.",
    errno.EPERM: "not permitted. Grant access, or choose another place.",
    errno.EROFS: "the file system is read-only. Choose another place.",
    errno.EIO: "the disk or network drive failed (input/output error). Check it, then run the command again.",
    errno.EMFILE: "too many open files. Raise the limit (ulimit -n), or use fewer --workers.",
    errno.ENFILE: "the system has too many open files. Close some programs.",
    errno.ENOMEM: "out of memory. Use a smaller --batch-size, or fewer --workers.",
    errno.ENOENT: "no such file or folder. Was it moved or deleted meanwhile? Check the path.",
    errno.ENOTDIR: "a part of this path is a file where a folder is needed. Choose another place.",
    errno.EISDIR: "this is a folder where a file is needed. Choose another name.",
    errno.EEXIST: "something else has this name already. Choose another.",
    errno.EAGAIN: "the system can start no more processes now. Close some, or use fewer --workers.",
    errno.ENAMETOOLONG: "the name is too long for this file system. Choose a shorter one.",
    errno.EFBIG: "the file would be larger than is allowed here. Raise the limit (ulimit -f), or write elsewhere.",
}


_SIGNS_OF_NO_MEMORY = (
    "DefaultCPUAllocator",  # torch on a CPU
    "could not create a primitive",  # oneDNN, beneath it
    "AllocateRaw",  # ONNX Runtime, here and in the next two
    "bad_alloc",
    "Failed to allocate memory",
    "Failed to launch worker thread",  # Arrow
    "failed to map segment",  # whoever loads a library
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is Python's, or some library's, way to say that memory ran out. None of them is imported."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch on a GPU
        or any(sign in str(error) for sign in _SIGNS_OF_NO_MEMORY)
    )


def from_os_error(error: OSError) -> MachineError:
    """What the operating system refused, as a message with a remedy.

    Raises:
        OSError: `error` itself, where it isn't from the operating system.
    """
    if error.errno in {None, errno.EBADF, errno.EFAULT}:  # the others come from a disk, a drive, a driver
        raise error
    remedy = f"{error.strerror}. Check the disk or network drive, or choose another place."
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
    return MachineError(
        where + _REMEDIES.get(error.errno or 0, remedy), path=os.fsdecode(error.filename) if where else None
    )
