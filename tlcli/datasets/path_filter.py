"""Keep or drop paths by `--include` and `--exclude`, whose patterns are those of .gitignore."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tlcli.errors import UsageError
from tlcli.settings.filters import PathPatterns

EXCLUDED = "excluded"
"""Reason under which dropped files are counted."""


class PathFilter:
    """Decides which paths are used, and remembers which patterns matched anything.

    Args:
        filters: The patterns; None keeps every path.

    Raises:
        UsageError: A pattern is not valid.
    """

    def __init__(self, filters: PathPatterns | None = None) -> None:
        filters = filters or PathPatterns()
        self._include = [_Pattern("--include", text) for text in filters.include]
        self._exclude = [_Pattern("--exclude", text) for text in filters.exclude]

    def __bool__(self) -> bool:
        """Return whether there are patterns."""
        return bool(self._include or self._exclude)

    def keeps(self, path: str) -> bool:
        """Return whether a file is used.

        Args:
            path: Path below DATA or INPUT, with slashes, or a path as typed.
        """
        path = path.removeprefix("./").lstrip("/")
        included = not self._include or _any_matches(self._include, path)
        return not _any_matches(self._exclude, path) and included

    def drops_folder(self, path: str) -> bool:
        """Return whether all files of a folder are dropped by `--exclude`, so that it need not be readable."""
        return _any_matches(self._exclude, f"{path}/")

    def unused(self) -> list[str]:
        """Return the patterns that matched nothing, as options."""
        return [f"{pattern.option} {pattern.text!r}" for pattern in self._include + self._exclude if pattern.unused]

    def check_used(self, where: str, example: str | None) -> None:
        """Check that each pattern matched a file or folder.

        Args:
            where: What was searched, for messages.
            example: A path that was searched, if there is any.

        Raises:
            UsageError: A pattern matched nothing.
        """
        if unused := self.unused():
            such = f" such as {example}" if example else ""
            raise UsageError(
                f"{unused[0]} matches no file or folder of {where}. Correct or remove it; patterns are written as in "
                f".gitignore, for relative paths{such}."
            )


class _Pattern:
    """A compiled pattern."""

    def __init__(self, option: str, text: str) -> None:
        from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

        self.option, self.text, self.unused = option, text, True
        # A leading ! or # is part of a name here, not a negation or a comment.
        escaped = f"\\{text}" if text.startswith(("!", "#")) else text
        try:
            compiled = GitIgnoreSpecPattern(escaped.removeprefix("./")).regex
        except ValueError:
            compiled = None
        if compiled is None:
            raise UsageError(f"{option} {text!r} is not a valid pattern. Write it as in .gitignore: '*_mask.*'.")
        self.regex: re.Pattern[str] = compiled


def _any_matches(patterns: Sequence[_Pattern], path: str) -> bool:
    found = False
    for pattern in patterns:
        if (pattern.unused or not found) and pattern.regex.match(path):
            found, pattern.unused = True, False
    return found
