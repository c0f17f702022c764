"""A Ray cluster, joined or started, and what it has for us. Ray is imported when somebody asks for a cluster."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tlcli.errors import MachineError
from tlcli.interrupts import defer_interrupts, run_in_thread
from tlcli.processes import cores
from tlcli.progress import Reporter
from tlcli.settings import ClusterSettings

T = TypeVar("T")

CORES = 4
"""Cores of a worker where nobody said how many: one process that feeds more of them becomes the narrowest place."""

KNOCK_SECONDS = 10.0
"""How long a cluster may take to take a connection."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # or what still asks it for something while it ends starts it again
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # which makes a crash of SIGTERM
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # or the deaths of workers are told on standard output
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


@contextlib.contextmanager
def ray_cluster(settings: ClusterSettings, device: str, report: Reporter) -> Iterator[Cluster]:
    """A cluster for the length of the block; one that was started for it ends with it.

    Args:
        settings: Which.
        device: `auto` (its GPUs where it has any), `cpu` or `cuda`.
        report: Told what it has.

    Raises:
        MachineError: Ray isn't installed, the cluster isn't there, or has nothing for us.
    """
    address = _address() if settings.address == "auto" else settings.address
    with _environment(_told(QUIET if address else QUIET | ALONE)):
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


_first: list[Mapping[str, str]] = []
"""What Ray was told when it was imported."""


def _told(variables: Mapping[str, str]) -> Mapping[str, str]:
    """What Ray is told by the environment: what it was told first, since it heeds that; nothing where others did it."""
    if not _first:
        _first.append({} if "ray" in sys.modules else variables)
    return _first[0]


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

    over = threading.Event()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with contextlib.ExitStack() as stack:
        if address is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tlcli-", ignore_cleanup_errors=True))
            options |= {"num_cpus": cores(), "include_dashboard": False, "_temp_dir": folder}
        try:
            try:
                if address is not None:
                    _knock(address)
                with defer_interrupts(), _hushed():
                    run_in_thread(functools.partial(ray.init, address or "local", **options), until=over)
            except (OSError, RuntimeError, ValueError, ImportError) as error:
                what = f"the Ray cluster {address} can't be joined" if address else "Ray can't be started here"
                raise MachineError(f"{what} ({first_line(error)}). See ray status, and --cluster.") from error
            yield
        finally:
            with defer_interrupts(), _hushed():
                run_in_thread(ray.shutdown)
            over.set()


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at `address`, which Ray would go on trying for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


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
    """Nothing on standard error: there Ray's C++ part says that it was told to be quiet, and threads that it goes."""
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


def first_line(error: BaseException) -> str:
    """Of what an error says."""
    return next(iter(str(error).splitlines()), type(error).__name__)
