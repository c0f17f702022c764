"""Pieces of work through the workers of a cluster, by Ray Data."""

from __future__ import annotations

import functools
import logging
import os
import pickle
import platform
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from tlcli import __version__
from tlcli.cluster.connection import Cluster, first_line
from tlcli.errors import MachineError, TlcliError
from tlcli.interrupts import run_in_thread
from tlcli.processes import limit_cores

T = TypeVar("T")
R = TypeVar("R")

LONGEST = 6 * 3600.0
"""Seconds that a piece of work may take. Ray hands it out anew whenever its worker dies, so something must end that."""


def stream(cluster: Cluster, worker: Callable[[], Callable[[T], R]], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
    """What workers answer to tasks, with the task's number, as it comes: in any order, few ahead.

    Args:
        cluster: From `joined`.
        worker: Makes what answers; called once in each worker's process, which is kept for all its tasks.
        tasks: Each goes to one worker, and again to another one where that dies.

    Raises:
        TlcliError: as a worker raised it.
        MachineError: workers die of a task, or the cluster went away.
    """
    for number, pickled in _answers(cluster, worker, tasks):
        answer = pickle.loads(pickled)
        if isinstance(answer, _Failure):
            raise answer.error
        yield number, answer


def _answers(
    cluster: Cluster, worker: Callable[[], Callable[[T], R]], tasks: Sequence[T]
) -> Iterator[tuple[int, bytes]]:
    """Numbers of tasks, and the pickled answers."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # whose progress and stack traces are ours to tell
    place = _Place(cores=cluster.cores, directory=os.getcwd(), host=platform.node(), version=__version__)  # noqa: PTH109
    items = [{"number": number, "task": pickle.dumps(task)} for number, task in enumerate(tasks)]
    asked = ray.data.from_items(items, override_num_blocks=len(items))
    asked.context.enable_progress_bars = False
    asked.context.execution_no_progress_timeout_s = LONGEST
    answers = asked.map_batches(
        _Actor,
        fn_constructor_args=(place, worker),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(cluster.workers, len(tasks))),
        num_cpus=cluster.cores,
        num_gpus=cluster.gpus,
    )
    batches = iter(answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    try:
        while (batch := run_in_thread(functools.partial(next, batches, None))) is not None:
            yield from zip(batch["number"].to_pylist(), batch["answer"].to_pylist(), strict=True)
    except Exception as error:
        if not type(error).__module__.startswith("ray."):
            raise
        raise MachineError(
            f"the Ray cluster failed ({first_line(error)}). Is its memory short? Try fewer workers, with more --cores "
            "each, or a smaller --part-size."
        ) from error


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a worker's process has to find itself."""

    cores: int
    directory: str
    host: str
    """Whose driver it is."""
    version: str

    def settle(self) -> None:
        """Take the share of cores, and the driver's folder, so that a path means the same file."""
        if self.version != __version__:
            raise MachineError(f"it has tlcli {__version__} instead of {self.version}. Install the same everywhere.")
        limit_cores(self.cores)
        try:
            os.chdir(self.directory)
        except OSError as error:
            raise MachineError(
                f"it has no folder {self.directory} ({error.strerror}). Start tlcli in a folder that all machines see.",
                path=self.directory,
            ) from error


@dataclass(frozen=True)
class _Failure:
    """Why there is no answer. As an answer, since Ray would wrap up what is raised, and try some of it again."""

    error: Exception


class _Actor:
    """What Ray Data keeps in each worker's process, and makes again where that died."""

    def __init__(self, place: _Place, worker: Callable[[], Callable[[Any], Any]]) -> None:
        self._place = place
        self._make = worker
        self._worker: Callable[[Any], Any] | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        answers = [pickle.dumps(self._answer(pickle.loads(task.as_py()))) for task in batch["task"]]
        return pa.table({"number": batch["number"], "answer": pa.array(answers, pa.large_binary())})

    def _answer(self, task: Any) -> Any:  # noqa: ANN401 - between the driver and its worker
        try:
            if self._worker is None:
                self._place.settle()
                self._worker = self._make()
            return self._worker(task)
        except Exception as error:  # noqa: BLE001 - raised by the driver
            if not isinstance(error, (TlcliError, OSError)):
                error.add_note(traceback.format_exc())
            elif platform.node() != self._place.host:
                error.add_note(f"This was on {platform.node()}.")
            return _Failure(_portable(error))


def _portable(error: Exception) -> Exception:
    """An error that survives being pickled: itself, or what it says."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever its class makes of it
        said = RuntimeError(f"{type(error).__name__}: {first_line(error)}")
        for note in getattr(error, "__notes__", []):
            said.add_note(note)
        return said
    return error
