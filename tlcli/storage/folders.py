"""Folders and files that a command writes as a whole: under its name, one is complete or not there. Torch-free."""

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
    """`atomic_write` by one process at a time, which first removes what killed ones left beside `path`.

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
    """Where it is to be, and how to know one that was written before."""

    path: Path
    option: str
    """What `path` was named by."""
    writer: str
    """The command that writes it, for messages."""
    index: str
    """The file that every such folder has."""
    others: re.Pattern[str]
    """Matches the names of its other files."""

    def check(self, *, replace: bool) -> None:
        """Refuse a folder that can't be written, before anything is computed for it.

        Args:
            replace: Whether what the same command wrote before may go.

        Raises:
            UsageError: something is there that may not be replaced, or that `writer` did not write.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.option} {self.path} is a file; expected a folder, new or empty.")
        names = self.names()
        if names and not replace:
            raise UsageError(f"{self.path} is not empty. Choose another {self.option}, or replace it with --overwrite.")
        foreign = self._foreign(self._there()) if names else []
        if not foreign and names and self.index not in names:
            foreign = names
        if foreign:
            raise self._refusal(self.path, foreign[0])

    def as_target(self) -> Target:
        """The same at a URL."""
        return Target(
            option=self.option, last=self.index, foreign=lambda names: next(iter(self._foreign_of(sorted(names))), None)
        )

    def names(self) -> list[str]:
        """What is there, sorted."""
        return sorted(os.listdir(self._there())) if self._there().is_dir() else []  # noqa: PTH208

    def _there(self) -> Path:
        """Where it is: beside its name, where a process was killed between the two renames that replace it."""
        return replaced_path(self.path) if not self.path.exists() and replaced_path(self.path).is_dir() else self.path

    @contextlib.contextmanager
    def publish(self, *, replace: bool) -> Iterator[Path]:
        """A folder to write into, which takes its name when the block has ended well, and else is removed.

        What a killed process left of its own beside it is removed first. An OSError without a name gets the folder's.

        Raises:
            UsageError: see `check`, which is asked again at the end.
            MachineError: another process is writing it.
        """
        with lock_output(self.path, Silent()):
            self._clear()
            staging = staging_path(self.path)
            with publish_directory(self.path, staging, before_rename=lambda: self.check(replace=replace)):
                yield staging

    def _clear(self) -> None:
        """Remove what killed processes left; a folder that was about to be replaced has its name back."""
        restore_directory(self.path)
        for left in (replaced_path(self.path), staging_path(self.path)):
            if left.is_dir():
                if foreign := self._foreign(left):
                    raise self._refusal(left, foreign[0])
                shutil.rmtree(left)

    def _foreign(self, folder: Path) -> list[str]:
        """What in a folder is not of such a folder, whole or half written."""
        return self._foreign_of(sorted(os.listdir(folder)))  # noqa: PTH208

    def _foreign_of(self, names: list[str]) -> list[str]:
        return [name for name in names if name != self.index and not self.others.fullmatch(name)]

    def _refusal(self, folder: Path, name: str) -> UsageError:
        return UsageError(
            f"{folder} holds {name!r}, which {self.writer} did not write, so it is not replaced. "
            f"Choose another {self.option}, or move that away."
        )
