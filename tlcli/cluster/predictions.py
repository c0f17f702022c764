"""Predict on a cluster: each worker keeps the run loaded and writes whole parts."""

from __future__ import annotations

import contextlib
import functools
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tlcli.cluster.part_folder import MAX_PARTS, open_part_folder, part_path, read_part
from tlcli.cluster.ray_cluster import ClusterRequest, ray_cluster
from tlcli.cluster.streaming import stream
from tlcli.errors import ArtifactError, MachineError, UsageError
from tlcli.inference.predictor import Predictor
from tlcli.inference.row_files import write_parquet
from tlcli.inference.rows import RowCounts, RowOptions, predict_rows
from tlcli.progress import Reporter
from tlcli.runs.run import load_run
from tlcli.storage.files import VISIBILITY_TIMEOUT
from tlcli.storage.publish import atomic_write, remove_leftovers
from tlcli.storage.urls import Location


@dataclass(frozen=True, kw_only=True)
class PartsSpec:
    """What the parts contain, and how workers write them."""

    out: Path
    """The folder of the parts."""
    run: Location
    sha256: str
    """SHA-256 of the run."""
    names: Sequence[str]
    """Names of the columns."""
    options: RowOptions
    part_size: int
    """Images per part."""
    engine: str
    batch_size: int | None
    workers: int | None
    """Decoder processes of each worker; None starts one per core of the worker."""


@dataclass(frozen=True, kw_only=True)
class PartTask:
    """A part for a worker to write."""

    number: int
    paths: list[str]


class PredictWorker:
    """Writes parts, keeping the run and the decoder processes between them.

    Args:
        spec: The run, the columns, and the output folder.
        device: The device to predict on.

    Raises:
        ArtifactError: the worker's machine has another run at this path.
    """

    def __init__(self, spec: PartsSpec, device: str) -> None:
        self._spec = spec
        run = load_run(spec.run)
        if run.info["sha256"] != spec.sha256:
            raise ArtifactError(
                f"{spec.run} is a different run on {platform.node()}. All machines must share the run.",
                path=spec.run,
            )
        self._predictor = Predictor(
            run, device=device, engine=spec.engine, batch_size=spec.batch_size, workers=spec.workers
        )
        self._loader = self._predictor.open_loader()

    def __call__(self, task: PartTask) -> RowCounts:
        """Write a part, and return the counts of its rows."""
        counts, rows = RowCounts(), []
        for batch in predict_rows(self._predictor, iter(task.paths), self._spec.options, self._loader):
            for _, row in batch:
                rows.append(row)
                counts.count(row)
        path = part_path(self._spec.out, task.number)
        remove_leftovers(path)
        with atomic_write(path) as file:
            write_parquet(file, self._spec.names, rows)
        return counts


def predict_on_cluster(
    spec: PartsSpec,
    cluster: ClusterRequest,
    *,
    signature: dict[str, Any],
    paths: Iterable[str],
    overwrite: bool,
    report: Reporter,
) -> tuple[RowCounts, bool]:
    """Predict the images of all parts that are missing in the folder `spec.out`.

    Args:
        spec: The run, the columns, and the output folder.
        cluster: The cluster to join.
        signature: Everything that the rows depend on.
        paths: Paths of the images.
        overwrite: Whether to replace the parts that exist.
        report: Receives the progress over the inputs.

    Returns:
        The counts of all rows, and whether none were missing.

    Raises:
        UsageError: there would be too many parts.
        ArtifactError: the folder was started with another signature.
        MachineError: the cluster cannot be reached or failed, or its machines do not share the folder.
    """
    out = spec.out
    content = signature | {"part_size": spec.part_size}
    with contextlib.ExitStack() as stack:
        enter = functools.partial(ray_cluster, cluster, report)
        # Connect before replacing the output: without a cluster, it stays.
        found = stack.enter_context(enter()) if overwrite else None
        stack.enter_context(open_part_folder(out, content, replace=overwrite, report=report))
        counts, tasks = _missing(out, spec.names, paths, spec.part_size, report)
        if not tasks:
            return counts, True
        found = found or stack.enter_context(enter())
        worker = functools.partial(PredictWorker, spec, found.device)
        total = counts.images + sum(len(task.paths) for task in tasks)
        advance = stack.enter_context(report.task("Predict", total))
        advance(counts.images)
        for _, part in stream(found, worker, tasks):
            counts.add(part)
            advance(part.images)
        if absent := _absent(out, tasks):
            raise MachineError(
                f"{part_path(out, absent[0])} was written by a worker, but is not visible here. All machines of the "
                "cluster must share the file system of --out.",
                path=out,
            )
    return counts, False


def _absent(out: Path, tasks: Sequence[PartTask]) -> list[int]:
    """Wait for all parts to become visible, as on a network drive, and return the numbers of those that do not."""
    ends = time.monotonic() + VISIBILITY_TIMEOUT
    while True:
        names = {path.name for path in out.iterdir()}
        absent = [task.number for task in tasks if part_path(out, task.number).name not in names]
        if not absent or time.monotonic() > ends:
            return absent
        time.sleep(1)


def _missing(
    out: Path, names: Sequence[str], paths: Iterable[str], size: int, report: Reporter
) -> tuple[RowCounts, list[PartTask]]:
    """Return the counts of the parts that exist, and tasks for the others."""
    counts, tasks = RowCounts(), []
    rest = iter(paths)
    number = 0
    while chunk := list(islice(rest, size)):
        if number == MAX_PARTS:
            raise UsageError(f"--part-size {size} would give more than {MAX_PARTS:,} parts. Use a larger one.")
        part = read_part(part_path(out, number), names, chunk, report)
        if part is None:
            tasks.append(PartTask(number=number, paths=chunk))
        else:
            counts.add(part)
        number += 1
    return counts, tasks
