"""A Ray cluster, joined or started, and pieces of work streamed through its workers by Ray Data.

The only place that imports ray, and only when somebody asks for a cluster.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import platform
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from tlcli import __version__
from tlcli.errors import MachineError, TlcliError
from tlcli.interrupts import unbroken
from tlcli.progress import Reporter
from tlcli.settings import ClusterSettings
from tlcli.settings.shared import cores, limit_cores

T = TypeVar("T")
R = TypeVar("R")

CORES = 4
"""Cores of a worker where nobody said how many: one process that feeds more of them becomes the narrowest place."""

LONGEST = 6 * 3600.0
"""Seconds that a piece of work may take. Ray hands it out anew whenever its worker dies, so something must end that."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # or the deaths of workers are told on standard output
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or it warns of what it will do one day
}
"""What keeps Ray to itself."""

ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
"""Has a cluster of one machine listen on its loopback address only, as it does by itself on others than Linux, and to
nobody but us."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a cluster that was joined has for us."""

    workers: int
    cores: int
    """Of each worker."""
    gpus: int
    """Of each worker: 1 or 0."""

    @property
    def device(self) -> str:
        """Where a worker's network runs."""
        return "cuda" if self.gpus else "cpu"

    def stream(self, worker: Callable[[], Callable[[T], R]], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """What workers answer to tasks, with the task's number, as it comes: in any order, few ahead.

        Args:
            worker: Makes what answers; called once in each worker's process, which is kept for all its tasks.
            tasks: Each goes to one worker, and again to another one where that dies.

        Raises:
            TlcliError: as a worker raised it.
            MachineError: workers die of a task, or the cluster went away.
        """
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # whose progress and stack traces are ours to tell
        actor = _Place(cores=self.cores, directory=os.getcwd(), host=platform.node(), version=__version__)  # noqa: PTH109
        items = [{"number": number, "task": pickle.dumps(task)} for number, task in enumerate(tasks)]
        asked = ray.data.from_items(items, override_num_blocks=len(items))
        asked.context.enable_progress_bars = False
        asked.context.execution_no_progress_timeout_s = LONGEST
        answers = asked.map_batches(
            _Actor,
            fn_constructor_args=(actor, worker),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(tasks))),
            num_cpus=self.cores,
            num_gpus=self.gpus,
        )
        try:
            for batch in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for number, answer in zip(batch["number"], batch["answer"], strict=True):
                    yield number.as_py(), pickle.loads(answer.as_py())
        except Exception as error:
            cause = _cause(error)
            if type(cause).__module__.startswith("ray."):
                raise MachineError(
                    f"the Ray cluster failed ({_first_line(cause)}). Is its memory short? Try fewer --cores, or a "
                    "smaller --part-size."
                ) from error
            raise cause from error


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


class _Actor:
    """What Ray Data keeps in each worker's process."""

    def __init__(self, place: _Place, worker: Callable[[], Callable[[Any], Any]]) -> None:
        self._place = place
        self._make = worker
        self._worker: Callable[[Any], Any] | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        try:
            if self._worker is None:  # not before, since Ray tries again where an actor can't be made
                self._place.settle()
                self._worker = self._make()
            answers = [pickle.dumps(self._worker(pickle.loads(task.as_py()))) for task in batch["task"]]
        except (TlcliError, OSError) as error:
            if platform.node() != self._place.host:
                error.add_note(f"This was on {platform.node()}.")
            raise
        return pa.table({"number": batch["number"], "answer": pa.array(answers, pa.large_binary())})


def _cause(error: BaseException) -> BaseException:
    """What a worker raised, out of what Ray wrapped it in; `error` itself where Ray raised it."""
    found = error
    while (inner := getattr(found, "cause", None) or found.__cause__) is not None:
        found = inner
    return found


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextlib.contextmanager
def joined(settings: ClusterSettings, device: str, report: Reporter) -> Iterator[Cluster]:
    """A cluster for the length of the block; one that was started for it ends with it.

    Args:
        settings: Which.
        device: `auto` (its GPUs where it has any), `cpu` or `cuda`.
        report: Told what it has.

    Raises:
        MachineError: Ray isn't installed, the cluster isn't there, or has nothing for us.
    """
    address = _address() if settings.address == "auto" else settings.address
    with _environment(QUIET if address else QUIET | ALONE):  # which Ray reads when it is imported
        try:
            import ray
        except ImportError as error:
            raise MachineError("--cluster needs Ray, which is not installed: pip install 'tlcli[ray]'.") from error
        with contextlib.nullcontext() if ray.is_initialized() else _connected(address):
            cluster = _share_out(ray.nodes(), settings, device)
            what = "GPU and " if cluster.gpus else ""
            where = address or "on this machine alone"
            report.note(
                f"Cluster   {where}: {cluster.workers} x {what}{cluster.cores} "
                f"{'core' if cluster.cores == 1 else 'cores'}"
            )
            yield cluster


def _address() -> str | None:
    """Of the cluster that this machine is part of: as its user says, or as `ray start` left it; None without."""
    if said := os.environ.get("RAY_ADDRESS"):
        return said
    # Not by asking Ray, which would find what others started for themselves, too.
    left = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    try:
        return left.read_text(encoding="utf8").strip() or None
    except OSError:
        return None


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster at `address`; None starts one, and ends it."""
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with contextlib.ExitStack() as stack:
        if address is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tlcli-", ignore_cleanup_errors=True))
            options |= {"num_cpus": cores(), "include_dashboard": False, "_temp_dir": folder}
        try:
            with _hushed():
                ray.init(address or "local", **options)
        except (OSError, RuntimeError, ValueError, ImportError) as error:
            what = f"the Ray cluster {address} can't be joined" if address else "Ray can't be started here"
            raise MachineError(f"{what} ({_first_line(error)}). See ray status, and --cluster.") from error
        try:
            yield
        finally:
            with unbroken():
                ray.shutdown()


def _share_out(nodes: Sequence[Mapping[str, Any]], settings: ClusterSettings, device: str) -> Cluster:
    """As many workers as fit onto the machines, all alike: on their GPUs where there are any, else on their cores."""
    machines = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    with_gpus = [machine for machine in machines if machine.get("GPU", 0) >= 1] if device != "cpu" else []
    if device == "cuda" and not with_gpus:
        raise MachineError("--device cuda: no machine of the Ray cluster has a GPU. Use --device cpu (or auto).")
    gpus = 1 if with_gpus else 0
    usable = with_gpus or machines
    each = [max(1, int(machine["CPU"] // machine["GPU"])) if gpus else int(machine["CPU"]) for machine in usable]
    most = settings.cores or min([*each, *([] if gpus else [CORES])])
    by_cores = [int(machine["CPU"] // most) for machine in usable]
    workers = sum(map(min, by_cores, [int(machine["GPU"]) for machine in usable]) if gpus else by_cores)
    if not workers:
        raise MachineError(f"no machine of the Ray cluster has {most} cores for a worker. Give fewer --cores.")
    return Cluster(workers=workers, cores=most, gpus=gpus)


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Nothing on standard error: Ray's C++ part says there what it takes from the environment, told to be quiet."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the length of the block, where the user hasn't set them."""
    ours = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
