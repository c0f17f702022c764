"""The processes of one training, as torchrun starts them: rank, size, and collective operations between them.

Outside `process_group` a process is alone: every collective operation then acts on this process only. Torch-free.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tlcli.errors import MachineError, TlcliError
from tlcli.progress import Reporter, Silent

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

T = TypeVar("T")
U = TypeVar("U")

COLLECTIVE_TIMEOUT = timedelta(days=1)
"""Others may be computing features for hours. torchrun ends a waiting process if another one dies."""
START_TIMEOUT = timedelta(minutes=30)
"""Time within which all processes must have started."""

_most_cores: int | None = None


def limit_cores(count: int) -> None:
    """Make `cores` return at most `count`, in a process that shares its machine with other such processes."""
    global _most_cores  # noqa: PLW0603 - cores are a property of the process
    _most_cores = count


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return found if _most_cores is None else min(found, _most_cores)


@dataclass(frozen=True)
class ProcessRank:
    """The rank of this process, and the number of processes."""

    rank: int
    size: int
    local_rank: int
    """Rank among the processes of this machine."""
    job: str
    """torchrun's name for this group of processes, unchanged by restarts; empty if there is none."""
    restarts: int
    """How often torchrun restarted the processes of this machine."""


class PeerStopped(TlcliError):
    """Another process stopped and reports why; this one stops silently."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this training stopped.")
        self.exit_code = exit_code


ALONE = ProcessRank(rank=0, size=1, local_rank=0, job="", restarts=0)
_current = ALONE


def launched() -> ProcessRank:
    """Return the rank that torchrun, or another launcher that sets its variables, gave to this process."""
    variables = os.environ
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= variables.keys():
        return ALONE
    return ProcessRank(
        rank=int(variables["RANK"]),
        size=int(variables["WORLD_SIZE"]),
        local_rank=int(variables.get("LOCAL_RANK", "0")),
        job=variables.get("TORCHELASTIC_RUN_ID", "").removeprefix("none"),
        restarts=int(variables.get("TORCHELASTIC_RESTART_COUNT", "0")),
    )


def rank() -> int:
    """Return this process's rank. The first process, 0, is the one that prints and writes."""
    return _current.rank


def size() -> int:
    """Return how many processes train together."""
    return _current.size


def local_rank() -> int | None:
    """Return this process's rank on its machine; None if it is alone."""
    return None if _current == ALONE else _current.local_rank


@contextlib.contextmanager
def process_group(report: Reporter, *, cuda: bool) -> Iterator[tuple[Reporter, ProcessRank]]:
    """Connect to the other processes, if there are any.

    Yields this process's reporter, which is silent in all but the first, and its rank.

    Args:
        report: The reporter of the first process.
        cuda: Whether the processes compute on CUDA.

    Raises:
        MachineError: they cannot be reached, or one was lost.
        PeerStopped: one was lost, and the first process reports it.
    """
    global _current  # noqa: PLW0603 - like torch's own process group, it is a property of the process
    place = launched()
    if place.size == 1 or _current != ALONE:
        yield Silent() if rank() else report, place
        return
    import torch
    from torch import distributed

    if cuda:
        if place.local_rank >= torch.cuda.device_count():
            raise MachineError(
                f"process {place.local_rank + 1} on this machine has no GPU; GPUs found: {torch.cuda.device_count()}. "
                "Start one process per GPU (--nproc-per-node), or use --device cpu."
            )
        torch.cuda.set_device(place.local_rank)
    with _explain_lost_peers(place):
        whole = _open_store()
        store = distributed.PrefixStore(_rendezvous(whole, place), whole)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        distributed.init_process_group(
            backend, store=store, rank=place.rank, world_size=place.size, timeout=COLLECTIVE_TIMEOUT
        )
        limit_cores(max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
        torch.set_num_threads(cores())  # torchrun sets one thread, whatever the machine
        _current = place
        report = Silent() if place.rank else report
        report.note(f"{place.size} processes train together, each on a part of every batch")
        try:
            yield report, place
        finally:
            _current = ALONE
        distributed.destroy_process_group()  # not after an error: it would wait for lost processes


def _open_store() -> Store:
    from torch.distributed.rendezvous import rendezvous

    store: Store = next(rendezvous("env://", timeout=COLLECTIVE_TIMEOUT))[0]
    return store


def _rendezvous(store: Store, place: ProcessRank) -> str:
    """Agree on a name for this start, since after a restart the store still holds the keys of the previous one.

    Raises:
        MachineError: some processes did not connect in time.
    """
    own, deadline = uuid.uuid4().hex, time.monotonic() + START_TIMEOUT.total_seconds()
    store.set(f"here/{place.rank}", own)
    while time.monotonic() < deadline:
        others = [_read(store, f"here/{rank}") for rank in range(place.size)]
        if place.rank == 0 and all(others):
            store.set("all", " ".join(others))
        met = _read(store, "all")
        if met.split(" ")[place.rank :][:1] == [own]:
            store.set(f"met/{place.rank}", met)
            if all(_read(store, f"met/{rank}") == met for rank in range(place.size)):
                return hashlib.sha256(met.encode()).hexdigest()
        time.sleep(0.05)
    raise MachineError(
        f"not all of the {place.size} processes connected within {START_TIMEOUT.total_seconds() / 60:.0f} minutes. "
        "Check that all of them were started and that the machines can reach each other."
    )


def _read(store: Store, name: str) -> str:
    """Return the value of a key; empty if there is none."""
    return store.get(name).decode() if store.check([name]) else ""


@contextlib.contextmanager
def _explain_lost_peers(place: ProcessRank) -> Iterator[None]:
    from torch import distributed

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error).lower():
            raise
        if place.rank:
            raise PeerStopped(MachineError.exit_code) from error
        raise MachineError(
            f"lost contact with another of the {place.size} processes: it was killed, or its machine or network "
            "failed. With torchrun --max-restarts N, training resumes automatically."
        ) from error


def gather(value: T) -> list[T]:
    """Return the values of all processes, by rank."""
    if size() == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * size()
    distributed.all_gather_object(values, value)
    return cast(list[T], values)


def from_first(make: Callable[[], T]) -> T:
    """Call `make` in the first process, and return its result in all; the others wait for it.

    Raises:
        PeerStopped: it failed in the first process, which reports it.
    """
    made = in_first(make)
    if size() == 1:
        return cast(T, made)
    from torch import distributed

    values = [made]
    distributed.broadcast_object_list(values)
    return cast(T, values[0])


def in_first(make: Callable[[], T]) -> T | None:
    """Call `make` in the first process, and return its result there; the others wait for it and get None.

    Raises:
        PeerStopped: it failed in the first process, which reports it.
    """
    if size() == 1:
        return make()
    from torch import distributed

    outcome: list[int | None] = [None]
    if rank():
        distributed.broadcast_object_list(outcome)
        if outcome[0] is not None:
            raise PeerStopped(outcome[0])
        return None
    try:
        made = make()
    except Exception as error:
        outcome[0] = error.exit_code if isinstance(error, TlcliError) else 1
        distributed.broadcast_object_list(outcome)
        raise
    distributed.broadcast_object_list(outcome)
    return made


def total(values: Sequence[float]) -> list[float]:
    """Return sums over all processes, the same to the last bit in each."""
    if size() == 1:
        return list(values)
    import torch
    from torch import distributed

    sums = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(sums)
    return cast(list[float], sums.tolist())


def share(items: Sequence[T], *, among: Sequence[int] | None = None) -> Sequence[T]:
    """Return this process's contiguous part of some work; parts differ in length by at most one.

    Args:
        items: All of the work, the same in each process.
        among: The ranks that share it, of which this is one; None for all.
    """
    ranks = range(size()) if among is None else among
    at = list(ranks).index(rank())
    return items[len(items) * at // len(ranks) : len(items) * (at + 1) // len(ranks)]


def in_parts(items: Sequence[T], work: Callable[[Sequence[T]], U]) -> list[U]:
    """Call `work` in each process with its part of `items`, and return the results of all processes, by rank."""
    return gather(work(share(items)))
