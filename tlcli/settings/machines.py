"""Settings that spread work over several machines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tlcli.errors import UsageError
from tlcli.settings.checks import at_least
from tlcli.settings.options import MACHINES, Option, OptionGroup


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One of `of` contiguous ranges of the images, in their order. The lengths differ by at most one."""

    number: int
    """From 1 to `of`."""
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise UsageError(_invalid_shard(str(self)))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def range(self, total: int) -> range:
        """Return the indices of its images, of `total`; empty for some shards if there are more shards than images."""
        return range((self.number - 1) * total // self.of, self.number * total // self.of)


def parse_shard(text: str) -> Shard:
    """Parse `I/N`.

    Raises:
        UsageError: `text` is not a valid shard.
    """
    if not (found := re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)):
        raise UsageError(_invalid_shard(text))
    return Shard(number=int(found[1]), of=int(found[2]))


def _invalid_shard(text: str) -> str:
    return f"--shard is {text!r}; expected I/N with I from 1 to N, such as 1/4 for the first of four parts."


SHARD_OPTION = Option(
    help="Process only the I-th of N consecutive parts of the images, such as one part per machine.",
    metavar="I/N",
    panel=MACHINES,
    unset="all",
    parse=parse_shard,
)

DEFAULT_PART_SIZE = 1000
"""A few seconds of work for four cores. Handing out a part takes milliseconds and refilling the decoders tenths of a
second, so neither matters; and a worker that dies loses no more than one part."""


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """A Ray cluster and its workers."""

    address: str = field(
        default="auto",
        metadata=Option(
            help="Compute on a Ray cluster (pip install 'tlcli[ray]'). auto uses the cluster of this machine, or "
            "starts one on this machine only.",
            metavar="auto|ADDRESS",
            flag="--cluster",
            panel=MACHINES,
        ),
    )
    part_size: int = field(
        default=DEFAULT_PART_SIZE,
        metadata=Option(
            help="Images that a worker of the cluster gets at a time.",
            metavar="P",
            panel=MACHINES,
            unset=str(DEFAULT_PART_SIZE),
        ),
    )
    cores: int | None = field(
        default=None,
        metadata=Option(
            help="Cores per worker of the cluster.",
            metavar="N",
            panel=MACHINES,
            unset="4, or all of the smallest machine if it has fewer",
        ),
    )

    def __post_init__(self) -> None:
        if not self.address:
            raise UsageError("--cluster is empty; expected auto, or the address of a Ray cluster.")
        at_least("--part-size", self.part_size, 1)
        at_least("--cores", self.cores, 1)


def choose_cluster(given: Mapping[str, Any]) -> ClusterSettings | None:
    """Build the cluster's settings from the values of a command line; None without `--cluster`.

    Raises:
        UsageError: a value is invalid, or needs `--cluster`.
    """
    if given["address"] is None:
        for option, name in (("--part-size", "part_size"), ("--cores", "cores")):
            if given[name] is not None:
                raise UsageError(f"{option} has no effect without --cluster.")
        return None
    part_size = DEFAULT_PART_SIZE if given["part_size"] is None else given["part_size"]
    return ClusterSettings(address=given["address"], part_size=part_size, cores=given["cores"])


CLUSTER_OPTIONS = OptionGroup(settings=ClusterSettings, build=choose_cluster)


def check_machines(shard: Shard | None, cluster: ClusterSettings | None, device: str) -> None:
    """Check that the shard, cluster, and device settings are compatible.

    Raises:
        UsageError: a shard on a cluster, or a device that not every worker has.
    """
    if cluster is None:
        return
    if shard is not None:
        raise UsageError(
            "--shard and --cluster cannot be combined: the cluster distributes all images itself. Remove one."
        )
    if device not in {"auto", "cpu", "cuda"}:
        raise UsageError(f"--device is {device!r}; with --cluster expected auto, cpu or cuda: Ray assigns the GPU.")
