"""Settings that choose files by their names. Every command that reads images has them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

from tlcli.errors import UsageError
from tlcli.settings.options import Option, OptionGroup

FILES = "Files"


@dataclass(frozen=True, kw_only=True)
class PathPatterns:
    """Which files of DATA or INPUT are used, before classes and splits are derived from their paths.

    Patterns are those of .gitignore: without a slash, one matches the name of a file or folder at any depth; with a
    slash, the path below DATA or INPUT. `**` matches any number of folders. A folder that matches includes all its
    files.
    """

    include: tuple[str, ...] = field(
        default=(),
        metadata=Option(
            help="Use only files that match a pattern as in .gitignore, below DATA or INPUT. Repeatable.",
            metavar="GLOB",
            panel=FILES,
        ),
    )
    exclude: tuple[str, ...] = field(
        default=(),
        metadata=Option(
            help="Skip files and folders that match a pattern, such as '*_mask.*'. Repeatable.",
            metavar="GLOB",
            panel=FILES,
        ),
    )

    def __post_init__(self) -> None:
        for option, patterns in (("--include", self.include), ("--exclude", self.exclude)):
            for pattern in patterns:
                if not pattern.strip("/ "):
                    raise UsageError(f"{option} is {pattern!r}; expected a pattern such as '*_mask.*' or 'extra/'.")

    def options(self) -> str:
        """Return the options as they are typed, each after a space, to append to a command."""
        pairs = [*(("--include", pattern) for pattern in self.include), *(("--exclude", text) for text in self.exclude)]
        return "".join(f" {shlex.quote(f'{option}={pattern}')}" for option, pattern in pairs)


FILTER_OPTIONS = OptionGroup(settings=PathPatterns)
