"""Publishing: a file or directory appears under its name completely or not at all. Torch-free.

Everything that tlcli writes under its final name goes through here: written under a temporary, hidden name in the same
directory, synced to disk, then renamed. Names that a killed process leaves behind:

- `.NAME.xxxxxxxx.tmp`: a temporary file (`hidden_prefix`)
- `.NAME.new`: a directory that is being written (`staging_path`)
- `.NAME.old`: a directory that is being replaced (`replaced_path`)

Nothing here locks. A caller that removes leftovers must hold the lock of the output (`locks.lock_output`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

TEMPORARY_SUFFIX = ".tmp"


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Publish a file: open a temporary file that is synced and renamed to `path` when the block ends.

    If the block raises, `path` is left as it was and the temporary file is removed. An OSError names `path`.
    """
    with os_errors_name(path), publish_file(path.parent, hidden_prefix(path), lambda: path.name) as file:
        yield file


@contextlib.contextmanager
def publish_file(directory: Path, prefix: str, final_name: Callable[[], str]) -> Iterator[IO[bytes]]:
    """Publish a file whose name is known only once it is written, for example because it contains a checksum.

    Args:
        directory: The directory of the file.
        prefix: Start of the temporary file's name.
        final_name: Called after the block to get the file's name.
    """
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=TEMPORARY_SUFFIX, dir=directory)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _apply_umask(temporary)
        temporary.replace(directory / final_name())
    except BaseException:
        with contextlib.suppress(OSError):  # report the first error
            temporary.unlink()
        raise
    sync_directory(directory)


@contextlib.contextmanager
def publish_directory(
    path: Path, staging: Path, *, before_rename: Callable[[], None] = lambda: None, keep_existing: bool = False
) -> Iterator[Path]:
    """Publish a directory: create `staging`, which is synced and renamed to `path` when the block ends.

    If the block raises, `path` is left as it was and `staging` is removed. An OSError names `path`.

    Args:
        path: The directory to publish. If it exists, it is replaced.
        staging: A path on the same file system that does not exist.
        before_rename: Called before the rename; may raise to refuse it.
        keep_existing: If `path` exists by then, keep it and discard what was written.
    """
    staging.mkdir()
    try:
        with os_errors_name(path):
            yield staging
            _sync_tree(staging)
        before_rename()
        if keep_existing:
            with contextlib.suppress(OSError):
                staging.rename(path)
        elif path.exists():
            replace_directory(staging, path)
        else:
            staging.rename(path)
        sync_directory(path.absolute().parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)  # report the first error
        raise
    leftover = staging if keep_existing else replaced_path(path)
    shutil.rmtree(leftover, ignore_errors=True)  # if this fails, the next command removes it


def replace_directory(staging: Path, path: Path) -> None:
    """Rename `staging` to `path`, moving the directory that is there to `replaced_path(path)`.

    If a process is killed between the two renames, `restore_directory` repairs it.
    """
    replaced = replaced_path(path)
    remove_directory(replaced)  # left by a process that was killed after the renames
    path.rename(replaced)
    try:
        staging.rename(path)
    except BaseException:
        replaced.rename(path)
        raise
    sync_directory(path.parent)


def restore_directory(path: Path) -> None:
    """Undo a replacement that was killed between the two renames of `replace_directory`."""
    if replaced_path(path).is_dir() and not path.exists():
        replaced_path(path).rename(path)


def staging_path(path: Path) -> Path:
    """Where a directory is written before it is published as `path`."""
    return path.with_name(f".{path.name}.new") if path.name else path


def replaced_path(path: Path) -> Path:
    """Where the directory at `path` is kept while another one takes its place."""
    return path.with_name(f".{path.name}.old")


def hidden_prefix(path: Path) -> str:
    """Start of the names of the hidden files that belong to `path`, and only of those; shortened for long names."""
    name = path.name
    if len(name) > 50:
        name = f"{name[:33]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
    return f".{name}."


def remove_leftovers(path: Path) -> None:
    """Delete the temporary files of killed writers of `path`. Requires the lock of `path`."""
    prefix = hidden_prefix(path)
    for other in path.parent.iterdir():
        if other.name.startswith(prefix) and len(other.name) == len(prefix) + 12 and other.suffix == TEMPORARY_SUFFIX:
            other.unlink(missing_ok=True)


def remove_temporary_files(directory: Path, prefix: str = ".", *, recursive: bool = False) -> None:
    """Delete the temporary files of killed writers in a directory. Requires the lock that guards the directory."""
    pattern = f"{prefix}*{TEMPORARY_SUFFIX}"
    for path in list(directory.rglob(pattern) if recursive else directory.glob(pattern)):
        path.unlink(missing_ok=True)


def remove_directory(directory: Path) -> None:
    """Delete a directory and everything in it, if it exists."""
    if directory.exists():
        shutil.rmtree(directory)


@contextlib.contextmanager
def os_errors_name(path: Path) -> Iterator[None]:
    """Make an OSError name `path` if it names a temporary file or nothing."""
    try:
        yield
    except OSError as error:
        if error.filename is None or os.fsdecode(error.filename).endswith(TEMPORARY_SUFFIX):
            error.filename, error.filename2 = os.fspath(path), None
        raise


def sync_directory(directory: Path) -> None:
    """Make renames within `directory` survive a power failure. An OSError names `directory`."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with os_errors_name(directory):
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:  # not supported, nor needed, by some network drives
            raise
    finally:
        os.close(descriptor)


def _sync_tree(directory: Path) -> None:
    """Sync the files in a directory and its subdirectories, then the directories."""
    for path in directory.iterdir():
        if path.is_dir():
            _sync_tree(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_directory(directory)


def _apply_umask(path: Path) -> None:
    """Give a temporary file, which is created private, the permissions of any new file."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
