"""One machine's share of the pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tlcli.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One of `of` contiguous ranges of the pictures, in their order, which differ in length by one at most."""

    number: int
    """Which, from 1 to `of`."""
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise UsageError(_expected(str(self)))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def range(self, total: int) -> range:
        """Its pictures' indices, of `total`; some are empty where there are fewer pictures than shards."""
        return range((self.number - 1) * total // self.of, self.number * total // self.of)


def parse_shard(text: str | None) -> Shard | None:
    """What `--shard I/N` says; None where it isn't given.

    Raises:
        UsageError: it is no shard.
    """
    if text is None:
        return None
    if not (found := re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)):
        raise UsageError(_expected(text))
    return Shard(number=int(found[1]), of=int(found[2]))


def _expected(text: str) -> str:
    return f"--shard is {text!r}; expected I/N with I from 1 to N, such as 1/4 for the first of four."
