"""Stream tasks through the workers of a cluster with Ray Data."""

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
from tlcli.cluster.ray_cluster import Cluster, first_line
from tlcli.errors import MachineError, TlcliError
from tlcli.interrupts import run_in_thread
from tlcli.processes import limit_cores

T = TypeVar("T")
R = TypeVar("R")

TASK_TIMEOUT = 6 * 3600.0
"""Seconds that a task may take. It bounds the retries: Ray restarts a task whenever its worker dies."""


def stream(cluster: Cluster, worker: Callable[[], Callable[[T], R]], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
    """Yield the number of each task and its worker's answer, in the order of completion, with few tasks in flight.

    Args:
        cluster: From `ray_cluster`.
        worker: Creates the function that answers tasks; called once in each worker process, which handles many tasks.
        tasks: Each is sent to one worker, and to another one if that dies.

    Raises:
        TlcliError: a worker raised it.
        MachineError: a task keeps crashing workers, or the cluster is lost.
    """
    for number, pickled in _answers(cluster, worker, tasks):
        answer = pickle.loads(pickled)
        if isinstance(answer, _Failure):
            raise answer.error
        yield number, answer


def _answers(
    cluster: Cluster, worker: Callable[[], Callable[[T], R]], tasks: Sequence[T]
) -> Iterator[tuple[int, bytes]]:
    """Yield the numbers of tasks and their pickled answers."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # tlcli reports progress and errors itself
    setup = _WorkerSetup(cores=cluster.cores, directory=os.getcwd(), host=platform.node(), version=__version__)  # noqa: PTH109
    items = [{"number": number, "task": pickle.dumps(task)} for number, task in enumerate(tasks)]
    asked = ray.data.from_items(items, override_num_blocks=len(items))
    asked.context.enable_progress_bars = False
    asked.context.execution_no_progress_timeout_s = TASK_TIMEOUT
    answers = asked.map_batches(
        _Actor,
        fn_constructor_args=(setup, worker),
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
            f"the Ray cluster failed ({first_line(error)}). If memory is short, use fewer workers with more --cores "
            "each, or a smaller --part-size."
        ) from error


@dataclass(frozen=True, kw_only=True)
class _WorkerSetup:
    """The environment that a worker process must have."""

    cores: int
    directory: str
    host: str
    """The driver's machine."""
    version: str

    def apply(self) -> None:
        """Limit the cores, and change to the driver's working directory, on which relative paths depend."""
        if self.version != __version__:
            raise MachineError(
                f"this machine has tlcli {__version__}, the driver has {self.version}. Install the same version."
            )
        limit_cores(self.cores)
        try:
            os.chdir(self.directory)
        except OSError as error:
            raise MachineError(
                f"this machine has no folder {self.directory} ({error.strerror}). Start tlcli in a folder that all "
                "machines share.",
                path=self.directory,
            ) from error


@dataclass(frozen=True)
class _Failure:
    """An error, sent as an answer because Ray wraps exceptions and retries some of them."""

    error: Exception


class _Actor:
    """Ray Data keeps one in each worker process, and creates another if the process dies."""

    def __init__(self, setup: _WorkerSetup, worker: Callable[[], Callable[[Any], Any]]) -> None:
        self._setup = setup
        self._create_worker = worker
        self._worker: Callable[[Any], Any] | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        answers = [pickle.dumps(self._answer(pickle.loads(task.as_py()))) for task in batch["task"]]
        return pa.table({"number": batch["number"], "answer": pa.array(answers, pa.large_binary())})

    def _answer(self, task: Any) -> Any:  # noqa: ANN401 - any task and answer
        try:
            if self._worker is None:
                self._setup.apply()
                self._worker = self._create_worker()
            return self._worker(task)
        except Exception as error:  # noqa: BLE001 - raised by the driver
            if not isinstance(error, (TlcliError, OSError)):
                error.add_note(traceback.format_exc())
            elif platform.node() != self._setup.host:
                error.add_note(f"It was raised on {platform.node()}.")
            return _Failure(_portable(error))


def _portable(error: Exception) -> Exception:
    """Return the error, or a RuntimeError with its text if it cannot be pickled and unpickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - depends on its class
        replacement = RuntimeError(f"{type(error).__name__}: {first_line(error)}")
        for note in getattr(error, "__notes__", []):
            replacement.add_note(note)
        return replacement
    return error
