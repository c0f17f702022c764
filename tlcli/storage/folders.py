"""Local outputs with a lock: files and folders that one process at a time publishes. Torch-free."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tlcli.errors import UsageError
from tlcli.progress import Reporter, Silent
from tlcli.storage.locks import lock_output
from tlcli.storage.outputs import Target
from tlcli.storage.publish import (
    atomic_write,
    publish_directory,
    remove_leftovers,
    replaced_path,
    restore_directory,
    staging_path,
)


@contextlib.contextmanager
def exclusive_write(path: Path, report: Reporter) -> Iterator[IO[bytes]]:
    """`atomic_write` under a lock, after removing what killed processes left beside `path`.

    Raises:
        MachineError: another process is writing it.
    """
    with lock_output(path, report) as held:
        if held:
            remove_leftovers(path)
        with atomic_write(path) as file:
            yield file


@dataclass(frozen=True, kw_only=True)
class AtomicFolder:
    """An output folder that appears completely or not at all, and replaces only folders that tlcli wrote."""

    path: Path
    option: str
    """The option that names `path`, for messages."""
    writer: str
    """The command that writes the folder, for messages."""
    index: str
    """The file that every such folder contains."""
    others: re.Pattern[str]
    """Matches the names of all other files that it may contain."""

    def check(self, *, replace: bool) -> None:
        """Check that the folder can be written, before anything is computed for it.

        Args:
            replace: Whether a folder that the same command wrote may be replaced.

        Raises:
            UsageError: something exists that may not be replaced, or that `writer` did not write.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.option} {self.path} is a file; expected a new or empty folder.")
        names = self.names()
        if names and not replace:
            raise UsageError(f"{self.path} is not empty. Choose another {self.option}, or replace it with --overwrite.")
        foreign = self._foreign_in(self._current()) if names else []
        if not foreign and names and self.index not in names:
            foreign = names
        if foreign:
            raise self._refusal(self.path, foreign[0])

    def as_target(self) -> Target:
        """Return the same output at a URL."""
        return Target(
            option=self.option, last=self.index, foreign=lambda names: next(iter(self._foreign(sorted(names))), None)
        )

    def names(self) -> list[str]:
        """Return the names of the files in the folder, sorted."""
        return sorted(os.listdir(self._current())) if self._current().is_dir() else []  # noqa: PTH208

    def _current(self) -> Path:
        """Return the existing folder; beside its name if a process was killed while replacing it."""
        replaced = replaced_path(self.path)
        return replaced if not self.path.exists() and replaced.is_dir() else self.path

    @contextlib.contextmanager
    def publish(self, *, replace: bool) -> Iterator[Path]:
        """Yield a new folder to write into, which is renamed to `path` at the end, or removed if the block raises.

        What killed processes left is removed first. An OSError without a file name gets `path`.

        Args:
            replace: See `check`, which is called again at the end.

        Raises:
            UsageError: see `check`.
            MachineError: another process is writing it.
        """
        with lock_output(self.path, Silent()):
            self._recover()
            staging = staging_path(self.path)
            with publish_directory(self.path, staging, before_rename=lambda: self.check(replace=replace)):
                yield staging

    def _recover(self) -> None:
        """Undo an interrupted replacement, and remove what killed processes left."""
        restore_directory(self.path)
        for leftover in (replaced_path(self.path), staging_path(self.path)):
            if leftover.is_dir():
                if foreign := self._foreign_in(leftover):
                    raise self._refusal(leftover, foreign[0])
                shutil.rmtree(leftover)

    def _foreign_in(self, folder: Path) -> list[str]:
        """Return the names in a folder that `writer` does not write."""
        return self._foreign(sorted(os.listdir(folder)))  # noqa: PTH208

    def _foreign(self, names: list[str]) -> list[str]:
        return [name for name in names if name != self.index and not self.others.fullmatch(name)]

    def _refusal(self, folder: Path, name: str) -> UsageError:
        return UsageError(
            f"{folder} contains {name!r}, which {self.writer} did not write, so it is not replaced. "
            f"Choose another {self.option}, or move the file elsewhere."
        )
