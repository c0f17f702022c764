"""Folders that a command writes as a whole: under its name, one is complete or not there. Torch-free."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tlcli.errors import UsageError
from tlcli.files import naming, sync_directory


@dataclass(frozen=True, kw_only=True)
class WholeFolder:
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
        foreign = [name for name in names if name != self.index and not self.others.fullmatch(name)]
        if not foreign and names and self.index not in names:
            foreign = names
        if foreign:
            raise UsageError(
                f"{self.path} holds {foreign[0]!r}, which {self.writer} did not write, so it is not replaced. "
                f"Choose another {self.option}, or move that away."
            )

    def names(self) -> list[str]:
        """What is there, sorted."""
        return sorted(os.listdir(self.path)) if self.path.is_dir() else []  # noqa: PTH208

    @contextlib.contextmanager
    def filled(self, *, replace: bool) -> Iterator[Path]:
        """A folder to write into, which takes its name when the block has ended well, and else is removed.

        Raises:
            UsageError: see `check`, which is asked again at the end.
        """
        parent = self.path.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        with naming(self.path):
            staging = self._beside()
        try:
            umask = os.umask(0)
            os.umask(umask)
            staging.chmod(0o777 & ~umask)
            yield staging
            for path in staging.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            sync_directory(staging)
            self.check(replace=replace)
            self._take_place(staging)
            sync_directory(parent)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)  # what went wrong first is what is told
            raise

    def _beside(self) -> Path:
        return Path(tempfile.mkdtemp(prefix=f".{self.path.name[:50]}.", suffix=".tmp", dir=self.path.absolute().parent))

    def _take_place(self, staging: Path) -> None:
        """Give `staging` the name; what was there stays until it is."""
        if not self.names():  # an empty folder is replaced by the rename itself
            staging.rename(self.path)
            return
        old = self._beside()
        self.path.rename(old)
        try:
            staging.rename(self.path)
        except BaseException:
            old.rename(self.path)
            raise
        shutil.rmtree(old, ignore_errors=True)
