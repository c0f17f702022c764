"""Features computed by several processes of one training: those who see the same cache share what it lacks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tlcli import processes
from tlcli.errors import MachineError
from tlcli.features.extract import Extraction
from tlcli.features.store import FeatureStore
from tlcli.storage.files import VISIBILITY_TIMEOUT

Todo = Sequence[tuple[int, int]]
"""Images, by their index, and views."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """How features are computed, for those who share a cache."""

    ready: Callable[[], object]
    """Makes ready what only one of them should make."""
    announce: Callable[[int], None]
    """Told how much there is to compute."""
    compute: Callable[[Todo, Extraction], None]
    """Computes some of it into the store, and enters what became of it."""


@dataclass(frozen=True, kw_only=True)
class _Done:
    """What one process did: `Extraction`, of its part."""

    digests: dict[int, bytes | None]
    failures: dict[int, str]
    computed: int
    reused: int


def extract_together(store: FeatureStore, todo: Todo, extraction: Extraction, work: Work) -> None:
    """Compute what a store lacks, and complete `extraction`, which is the same in all processes then.

    Args:
        store: In each process its own; where it is in memory only, the first process computes all, and it alone has it.
        todo: What this process finds missing.
        extraction: What is known so far.
        work: How it is done.

    Raises:
        MachineError: what others computed doesn't show up in this process's cache.
    """
    if store.directory is None:
        if processes.rank() == 0 and todo:
            work.compute(todo, extraction)
    elif any(processes.gather(bool(todo))):
        _share(store, todo, extraction, work)
    found = processes.of_first(lambda: extraction)
    if store.directory is not None:  # machines with copies of their own may have other images
        for differences in processes.gather(_differences(extraction, found)):
            found.failures = differences | found.failures
    extraction.digests, extraction.failures = found.digests, found.failures
    extraction.computed, extraction.reused = found.computed, found.reused


def _differences(own: Extraction, first: Extraction) -> dict[int, str]:
    """Why images that the first process has features of can't be used here."""
    other = {
        index: "is another image on another machine"
        for index, (digest, expected) in enumerate(zip(own.digests, first.digests, strict=True))
        if digest != expected and index not in first.failures
    }
    return other | {index: reason for index, reason in own.failures.items() if index not in first.failures}


def _share(store: FeatureStore, todo: Todo, extraction: Extraction, work: Work) -> None:
    members = _who_sees(store)
    todo, begun = processes.gather((todo, extraction))[members[0]]  # memos may differ from machine to machine
    if todo:  # others, who see another cache, may have some
        work.announce(len(todo))
        if processes.rank() == members[0]:
            work.ready()
    processes.gather(None)
    part = processes.share(todo, among=members)
    own = Extraction(digests=list(begun.digests))
    if part:
        work.compute(part, own)
    done_by = processes.gather(
        _Done(
            digests={index: own.digests[index] for index, _ in part},
            failures=own.failures,
            computed=own.computed,
            reused=own.reused,
        )
    )
    extraction.digests, extraction.failures = list(begun.digests), dict(begun.failures)
    extraction.computed, extraction.reused = begun.computed, begun.reused
    for member in members:
        for index, digest in done_by[member].digests.items():
            extraction.digests[index] = digest
        extraction.failures |= done_by[member].failures
        extraction.computed += done_by[member].computed
        extraction.reused += done_by[member].reused
    good = [(index, view) for index, view in todo if index not in extraction.failures]
    _wait_for(store, {(extraction.digests[index] or b"", view) for index, view in good})


def _who_sees(store: FeatureStore) -> list[int]:
    """The ranks, this one among them, for whom the store's directory is the same folder as for this process."""
    directory = store.make()
    assert directory is not None  # it is on disk
    token = directory / f".part-rank-{uuid.uuid4().hex}.tmp"
    token.touch()
    try:
        names = processes.gather(token.name)
        seen = [rank for rank, name in enumerate(names) if (directory / name).exists()]
        processes.gather(None)  # nobody removes what others still look for
    finally:
        token.unlink(missing_ok=True)  # whoever writes next removes leftovers of this name
    return seen


def _wait_for(store: FeatureStore, keys: set[tuple[bytes, int]]) -> None:
    ends = time.monotonic() + VISIBILITY_TIMEOUT
    while True:
        store.refresh()
        lacking = sum(key not in store for key in keys)
        if not lacking:
            return
        if time.monotonic() > ends:
            raise MachineError(
                f"{lacking:,} features that other processes wrote into {store.directory} do not appear here after "
                f"{VISIBILITY_TIMEOUT:.0f} s. Is it one file system? Give each machine a --cache DIR of its own.",
                path=store.directory,
            )
        time.sleep(0.2)
