"""predict on a cluster: each worker keeps the run loaded, and writes a part's rows by itself."""

from __future__ import annotations

import contextlib
import functools
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tlcli.cluster.connection import ray_cluster
from tlcli.cluster.parts import MOST_PARTS, open_part_folder, part_path, read_part
from tlcli.cluster.streaming import stream
from tlcli.errors import ArtifactError, MachineError, UsageError
from tlcli.inference.predictor import Predictor
from tlcli.inference.row_files import write_parquet
from tlcli.inference.rows import RowCounts, predict_rows
from tlcli.progress import Reporter
from tlcli.runs.run import load_run
from tlcli.settings import ClusterSettings, PredictSettings
from tlcli.storage.files import VISIBILITY_TIMEOUT
from tlcli.storage.publish import atomic_write, remove_leftovers


@dataclass(frozen=True, kw_only=True)
class PartTask:
    """A part that a worker is to write."""

    number: int
    paths: list[str]


class PredictWorker:
    """Writes parts, with a run and decoding processes that stay.

    Args:
        settings: Which run, which rows, where to.
        run: SHA-256 of the run.
        names: Of the columns.

    Raises:
        ArtifactError: on the worker's machine there is another run.
    """

    def __init__(self, settings: PredictSettings, run: str, names: Sequence[str]) -> None:
        self._settings = settings
        self._names = names
        found = load_run(settings.run)
        if found.info["sha256"] != run:
            raise ArtifactError(f"{settings.run} is another run on {platform.node()}.", path=settings.run)
        self._predictor = Predictor(found, settings.compute)
        self._loader = self._predictor.open_loader()

    def __call__(self, task: PartTask) -> RowCounts:
        """Write a part; the counts of its rows."""
        tally, rows = RowCounts(), []
        for some in predict_rows(self._predictor, iter(task.paths), self._settings, self._loader):
            for _, row in some:
                rows.append(row)
                tally.count(row)
        path = part_path(Path(self._settings.out or ""), task.number)
        remove_leftovers(path)
        with atomic_write(path) as file:
            write_parquet(file, self._names, rows)
        return tally


def predict_on_cluster(
    settings: PredictSettings,
    cluster: ClusterSettings,
    *,
    signature: dict[str, Any],
    names: Sequence[str],
    paths: Iterable[str],
    report: Reporter,
) -> tuple[RowCounts, bool]:
    """Predict images, in parts that lack in the folder `settings.out`.

    Args:
        settings: Which run, which rows, where to.
        cluster: Which cluster, and how many images a part.
        signature: All that decides what the rows are.
        names: Of the columns.
        paths: Of the images.
        report: Told of progress.

    Returns:
        The counts of all rows, and whether none were missing.

    Raises:
        UsageError: there would be too many parts.
        ArtifactError: the folder was begun with another signature.
        MachineError: the cluster isn't there or failed, or its machines don't see the folder.
    """
    out, compute = Path(settings.out or ""), settings.compute
    content = signature | {"part_size": cluster.part_size}
    with contextlib.ExitStack() as stack:
        enter = functools.partial(ray_cluster, cluster, compute.device, report)
        # What is to be replaced stays where there is no cluster.
        found = stack.enter_context(enter()) if settings.overwrite else None
        stack.enter_context(open_part_folder(out, content, replace=settings.overwrite, report=report))
        tally, tasks = _missing(out, names, paths, cluster.part_size, report)
        if not tasks:
            return tally, True
        found = found or stack.enter_context(enter())
        settings = replace(settings, compute=replace(compute, device=found.device))
        worker = functools.partial(PredictWorker, settings, signature["run"], names)
        total = tally.images + sum(len(task.paths) for task in tasks)
        advance = stack.enter_context(report.task("Predict", total))
        advance(tally.images)
        for _, part in stream(found, worker, tasks):
            tally.add(part)
            advance(part.images)
        if lacking := _lacking(out, tasks):
            raise MachineError(
                f"{part_path(out, lacking[0])} was written by a worker, but isn't here. All machines of the cluster "
                "must see the same file system.",
                path=out,
            )
    return tally, False


def _lacking(out: Path, tasks: Sequence[PartTask]) -> list[int]:
    """Parts that don't show up, by their number; a network drive takes its time to show them."""
    ends = time.monotonic() + VISIBILITY_TIMEOUT
    while True:
        there = {path.name for path in out.iterdir()}
        lacking = [task.number for task in tasks if part_path(out, task.number).name not in there]
        if not lacking or time.monotonic() > ends:
            return lacking
        time.sleep(1)


def _missing(
    out: Path, names: Sequence[str], paths: Iterable[str], size: int, report: Reporter
) -> tuple[RowCounts, list[PartTask]]:
    """The counts of the parts that are there, and tasks for the others."""
    tally, tasks = RowCounts(), []
    rest = iter(paths)
    number = 0
    while some := list(islice(rest, size)):
        if number == MOST_PARTS:
            raise UsageError(f"--part-size {size} makes more than {MOST_PARTS:,} parts. Give a larger one.")
        part = read_part(part_path(out, number), names, some, report)
        if part is None:
            tasks.append(PartTask(number=number, paths=some))
        else:
            tally.add(part)
        number += 1
    return tally, tasks
