"""Extraction by one process, or by all processes of a training; those with the same cache directory share the work."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from tlcli import processes
from tlcli.errors import MachineError
from tlcli.features.extraction import Extraction, Key, MissingFeatures
from tlcli.features.store import FeatureStore
from tlcli.storage.files import VISIBILITY_TIMEOUT


@dataclass(frozen=True, kw_only=True)
class Work:
    """How one process computes features."""

    prepare: Callable[[], object]
    """Makes what only one of the processes should make, such as the export."""
    announce: Callable[[int], None]
    """Reports how many images there are to compute."""
    compute: Callable[[MissingFeatures], None]
    """Computes missing features into their store, and completes their extraction."""


@dataclass(frozen=True, kw_only=True)
class _PartExtraction:
    """The extraction of one process's part."""

    digests: dict[int, bytes | None]
    failures: dict[int, str]
    computed: int
    reused: int


def extract_together(missing: MissingFeatures, work: Work) -> None:
    """Compute missing features, and complete the extraction, which is the same in all processes afterwards.

    If there are several, and the store is in memory, only the first process fills it and has the features.

    Args:
        missing: What this process finds missing. Each process has a store of its own.
        work: How one process prepares, announces, and computes missing features.

    Raises:
        MachineError: features that other processes computed do not appear in this process's cache.
    """
    if processes.size() == 1:
        if missing.todo:
            work.announce(len(missing.todo))
            work.compute(missing)
        return
    extraction = missing.extraction
    if missing.store.directory is None:
        found = processes.from_first(lambda: _compute(missing, work))
    else:
        if any(processes.gather(bool(missing.todo))):
            _share(missing, work)
        found = processes.from_first(lambda: extraction)
        # Machines with copies of their own may have other images.
        for differences in processes.gather(_differences(extraction, found)):
            found.failures = differences | found.failures
    extraction.digests, extraction.failures = found.digests, found.failures
    extraction.computed, extraction.reused = found.computed, found.reused


def _compute(missing: MissingFeatures, work: Work) -> Extraction:
    if missing.todo:
        work.compute(missing)
    return missing.extraction


def _differences(own: Extraction, first: Extraction) -> dict[int, str]:
    """Return why images whose features the first process has cannot be used in this process."""
    other = {
        index: "differs on another machine"
        for index, (digest, expected) in enumerate(zip(own.digests, first.digests, strict=True))
        if digest != expected and index not in first.failures
    }
    return other | {index: reason for index, reason in own.failures.items() if index not in first.failures}


def _share(missing: MissingFeatures, work: Work) -> None:
    """Compute a part of the missing features, and merge the extractions of all parts."""
    store, extraction = missing.store, missing.extraction
    store.shared_writers = True
    members = _ranks_sharing(store)
    # Memos may differ between machines, so all members start from the lookup of the first one.
    todo, looked_up = processes.gather((missing.todo, extraction))[members[0]]
    if todo:  # otherwise only processes with another cache have something to do
        work.announce(len(todo))
        if processes.rank() == members[0]:
            work.prepare()
    processes.gather(None)
    part = processes.share(todo, among=members)
    own = Extraction(digests=list(looked_up.digests))
    if part:
        work.compute(replace(missing, todo=part, extraction=own))
    parts = processes.gather(
        _PartExtraction(
            digests={index: own.digests[index] for index, _ in part},
            failures=own.failures,
            computed=own.computed,
            reused=own.reused,
        )
    )
    extraction.digests, extraction.failures = list(looked_up.digests), dict(looked_up.failures)
    extraction.computed, extraction.reused = looked_up.computed, looked_up.reused
    for member in members:
        for index, digest in parts[member].digests.items():
            extraction.digests[index] = digest
        extraction.failures |= parts[member].failures
        extraction.computed += parts[member].computed
        extraction.reused += parts[member].reused
    good = [(index, view) for index, view in todo if index not in extraction.failures]
    _wait_for(store, {(extraction.digests[index] or b"", view) for index, view in good})


def _ranks_sharing(store: FeatureStore) -> list[int]:
    """Return the ranks, including this one, whose store is in the same directory as this process's."""
    directory = store.make()
    assert directory is not None  # it is on disk
    token = directory / f".part-rank-{uuid.uuid4().hex}.tmp"
    token.touch()
    try:
        names = processes.gather(token.name)
        seen = [rank for rank, name in enumerate(names) if (directory / name).exists()]
        processes.gather(None)  # no token is removed before all processes have looked
    finally:
        token.unlink(missing_ok=True)  # if a kill prevents this, the next writer removes it
    return seen


def _wait_for(store: FeatureStore, keys: set[Key]) -> None:
    """Wait until a network file system shows the features that other processes wrote."""
    deadline = time.monotonic() + VISIBILITY_TIMEOUT
    while True:
        store.refresh()
        lacking = sum(key not in store for key in keys)
        if not lacking:
            return
        if time.monotonic() > deadline:
            raise MachineError(
                f"{lacking:,} features that other processes wrote to {store.directory} did not appear here within "
                f"{VISIBILITY_TIMEOUT:.0f} s. If machines do not share this folder, give each its own --cache DIR.",
                path=store.directory,
            )
        time.sleep(0.2)
