"""How work is spread over machines."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tlcli.errors import UsageError
from tlcli.settings.shared import at_least


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One of `of` contiguous ranges of the images, in their order, which differ in length by one at most."""

    number: int
    """Which, from 1 to `of`."""
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise UsageError(_expected(str(self)))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def range(self, total: int) -> range:
        """Its images' indices, of `total`; some are empty where there are fewer images than shards."""
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


PART_SIZE = 1000
"""Images in a part where nobody said how many: a few seconds' work of four cores, beside which handing it out (some
milliseconds) and refilling the decoders (some tenths of a second) count little, and all that a dying worker costs."""


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Which Ray cluster, and how it is used."""

    address: str = "auto"
    """As `ray.init` takes it; `auto` is the cluster that this machine is part of, else a new one on it alone."""
    part_size: int = PART_SIZE
    """Images that a worker is handed at a time."""
    cores: int | None = None
    """Cores of each worker; None takes four, or as many as the smallest machine has."""

    def __post_init__(self) -> None:
        if not self.address:
            raise UsageError("--cluster is empty; expected auto, or the address of a Ray cluster.")
        at_least("--part-size", self.part_size, 1)
        at_least("--cores", self.cores, 1)


def choose_cluster(address: str | None, *, part_size: int | None, cores: int | None) -> ClusterSettings | None:
    """What `--cluster` and the options that go with it say; None where it isn't given.

    Raises:
        UsageError: they can't be meant so.
    """
    if address is None:
        for option, value in (("--part-size", part_size), ("--cores", cores)):
            if value is not None:
                raise UsageError(f"{option} has no effect without --cluster.")
        return None
    return ClusterSettings(address=address, part_size=PART_SIZE if part_size is None else part_size, cores=cores)


def check_spread(shard: Shard | None, cluster: ClusterSettings | None, device: str) -> None:
    """Refuse what can't be spread so.

    Raises:
        UsageError: a shard on a cluster, or a device that every worker can't have.
    """
    if cluster is None:
        return
    if shard is not None:
        raise UsageError("--shard and --cluster exclude each other: the cluster shares all images out by itself.")
    if device not in {"auto", "cpu", "cuda"}:
        raise UsageError(f"--device is {device!r}; with --cluster expected auto, cpu or cuda: Ray says which GPU.")
