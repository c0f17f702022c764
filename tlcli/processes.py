"""Several processes that train one run, as torchrun starts them: who is which, and what they tell each other.

Outside `process_group` a process is alone: every collective function then acts on this process only. Torch-free.
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

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

T = TypeVar("T")

LONGEST = timedelta(days=1)
"""How long one process may wait for the others, who may be computing features; torchrun ends it if one of them dies."""
COMING = timedelta(minutes=30)
"""How long it takes at most until all are there."""


_most_cores: int | None = None


def limit_cores(count: int) -> None:
    """Have `cores` say `count` at most, in a process that shares its machine with others of its kind."""
    global _most_cores  # noqa: PLW0603 - cores are a matter of the process
    _most_cores = count


def cores() -> int:
    """Processor cores that this process may use."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return found if _most_cores is None else min(found, _most_cores)


@dataclass(frozen=True)
class ProcessRank:
    """Which of how many processes this is."""

    rank: int
    size: int
    local_rank: int
    """Among those of this machine."""
    job: str
    """What torchrun calls all of them, the same after it started them again; empty where it has no name of its own."""
    restarts: int
    """How often those of this machine were started again."""


class PeerStopped(TlcliError):
    """Another process stops, which says why; this one stops in silence."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this training stopped.")
        self.exit_code = exit_code


ALONE = ProcessRank(rank=0, size=1, local_rank=0, job="", restarts=0)
_place = ALONE


def launched() -> ProcessRank:
    """Which process torchrun (or whoever sets the same variables) made this; `ALONE` where nobody did."""
    known = os.environ
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= known.keys():
        return ALONE
    return ProcessRank(
        rank=int(known["RANK"]),
        size=int(known["WORLD_SIZE"]),
        local_rank=int(known.get("LOCAL_RANK", "0")),
        job=known.get("TORCHELASTIC_RUN_ID", "").removeprefix("none"),
        restarts=int(known.get("TORCHELASTIC_RESTART_COUNT", "0")),
    )


def rank() -> int:
    """This process's number; the first, 0, is the one that prints and writes."""
    return _place.rank


def size() -> int:
    """How many processes train together."""
    return _place.size


def local_rank() -> int | None:
    """This process's number on its machine; None where it is alone."""
    return None if _place == ALONE else _place.local_rank


@contextlib.contextmanager
def process_group(*, cuda: bool) -> Iterator[None]:
    """Meet the other processes, where there are some.

    Args:
        cuda: Whether they compute on CUDA.

    Raises:
        MachineError: they can't be met, or one was lost.
        Elsewhere: one was lost, and the first process says so.
    """
    global _place  # noqa: PLW0603 - as torch's own process group, it is a matter of the process
    place = launched()
    if place.size == 1 or _place != ALONE:
        yield
        return
    import torch
    from torch import distributed

    if cuda:
        if place.local_rank >= torch.cuda.device_count():
            raise MachineError(
                f"process {place.local_rank + 1} of this machine has no GPU: there are {torch.cuda.device_count()}. "
                "Start as many processes as there are GPUs (--nproc-per-node), or use --device cpu."
            )
        torch.cuda.set_device(place.local_rank)
    with _lost_is_an_error(place):
        whole = _open_store()
        store = distributed.PrefixStore(_meet(whole, place), whole)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        distributed.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, timeout=LONGEST)
        limit_cores(max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
        torch.set_num_threads(cores())  # torchrun allows one thread, whatever the machine
        _place = place
        try:
            yield
        finally:
            _place = ALONE
        distributed.destroy_process_group()  # not after an error: it would wait for those who are gone


def _open_store() -> Store:
    from torch.distributed.rendezvous import rendezvous

    store: Store = next(rendezvous("env://", timeout=LONGEST))[0]
    return store


def _meet(store: Store, place: ProcessRank) -> str:
    """Agree on who is there, in a store that may still hold what processes of before a restart wrote: a name for that.

    Raises:
        MachineError: some never come.
    """
    own, ends = uuid.uuid4().hex, time.monotonic() + COMING.total_seconds()
    store.set(f"here/{place.rank}", own)
    while time.monotonic() < ends:
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
        f"not all of the {place.size} processes came within {COMING.total_seconds() / 60:.0f} minutes. Were they all "
        "started, and do the machines reach each other?"
    )


def _read(store: Store, name: str) -> str:
    """What the store holds under a name; empty where there is nothing."""
    return store.get(name).decode() if store.check([name]) else ""


@contextlib.contextmanager
def _lost_is_an_error(place: ProcessRank) -> Iterator[None]:
    from torch import distributed

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error).lower():
            raise
        if place.rank:
            raise PeerStopped(MachineError.exit_code) from error
        raise MachineError(
            f"lost contact with another one of the {place.size} processes: it was killed, or its machine or network "
            "failed. With torchrun --max-restarts N, all go on by themselves."
        ) from error


def gather(value: T) -> list[T]:
    """Everybody's value, in the order of ranks."""
    if size() == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * size()
    distributed.all_gather_object(values, value)
    return cast(list[T], values)


def of_first(make: Callable[[], T]) -> T:
    """What the first process makes, for all; the others wait for it.

    Raises:
        Elsewhere: it failed, which it says itself.
    """
    made = only_first(make)
    if size() == 1:
        return cast(T, made)
    from torch import distributed

    values = [made]
    distributed.broadcast_object_list(values)
    return cast(T, values[0])


def only_first(make: Callable[[], T]) -> T | None:
    """What the first process makes, for itself: the others wait for it, and get None.

    Raises:
        Elsewhere: it failed, which it says itself.
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
    """Sums over all processes, the same to the last bit in each."""
    if size() == 1:
        return list(values)
    import torch
    from torch import distributed

    sums = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(sums)
    return cast(list[float], sums.tolist())


def share(items: Sequence[T], *, among: Sequence[int] | None = None) -> Sequence[T]:
    """This process's part of what is to be done: a stretch as long as the others', or one shorter.

    Args:
        items: All of it, the same in each process.
        among: The ranks that share it, of which this is one; None for all.
    """
    ranks = range(size()) if among is None else among
    at = list(ranks).index(rank())
    return items[len(items) * at // len(ranks) : len(items) * (at + 1) // len(ranks)]
