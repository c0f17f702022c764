"""Join or start a Ray cluster, and divide its resources among workers. Ray is imported only for `--cluster`."""

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

T = TypeVar("T")

DEFAULT_CORES = 4
"""Maximum cores per worker without `--cores`: with more, the one process that feeds them is the bottleneck."""

CONNECT_TIMEOUT = 10.0
"""Seconds until the cluster must accept a connection."""

QUIET_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # otherwise a late request during shutdown starts Ray again
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # it turns SIGTERM into a crash
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # otherwise dead workers are reported on standard output
}
"""Environment variables that keep Ray silent and offline."""

PRIVATE_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
"""Environment variables with which a local cluster listens on the loopback address only (the default except on Linux)
and accepts only this process."""


@dataclass(frozen=True, kw_only=True)
class ClusterRequest:
    """Which cluster to join, and what to use of it."""

    address: str
    """`auto`, or the address of a cluster."""
    cores: int | None
    """Cores per worker; None picks them."""
    device: str
    """`auto` (GPUs if the cluster has any), `cpu` or `cuda`."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The resources of a cluster that tlcli uses."""

    workers: int
    cores: int
    """Cores per worker."""
    gpus: int
    """GPUs per worker: 1 or 0."""

    @property
    def device(self) -> str:
        """The device of a worker's network."""
        return "cuda" if self.gpus else "cpu"


@contextlib.contextmanager
def ray_cluster(request: ClusterRequest, report: Reporter) -> Iterator[Cluster]:
    """Connect to a cluster for the duration of the block. A cluster that is started for it ends with it.

    Args:
        request: The cluster's address, the cores per worker, and the device.
        report: Receives a note about the resources.

    Raises:
        MachineError: Ray is not installed, or the cluster cannot be reached or lacks the resources.
    """
    address = _address() if request.address == "auto" else request.address
    with _environment(_ray_environment(address)):
        try:
            import ray
        except ImportError as error:
            raise MachineError("--cluster needs Ray, which is not installed: pip install 'tlcli[ray]'.") from error
        with contextlib.nullcontext() if ray.is_initialized() else _connected(address):
            cluster = _allocate(ray.nodes(), request)
            what = "GPU and " if cluster.gpus else ""
            where = address or "this machine only"
            report.note(
                f"Cluster   {where}: {cluster.workers} x {what}{cluster.cores} "
                f"{'core' if cluster.cores == 1 else 'cores'}"
            )
            yield cluster


_variables_at_import: list[Mapping[str, str]] = []
"""The environment variables of Ray's import: it reads them only then."""


def _ray_environment(address: str | None) -> Mapping[str, str]:
    """Return the environment variables for Ray, fixed at the first call; empty if the caller has imported Ray."""
    if not _variables_at_import:
        variables = QUIET_ENVIRONMENT if address else QUIET_ENVIRONMENT | PRIVATE_ENVIRONMENT
        _variables_at_import.append({} if "ray" in sys.modules else variables)
    return _variables_at_import[0]


def _address() -> str | None:
    """Return the address of this machine's cluster, from `RAY_ADDRESS` or `ray start`; None if there is none."""
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    # Ray itself would also find private clusters that other processes started.
    address_file = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    try:
        return address_file.read_text(encoding="utf8").strip() or None
    except OSError:
        return None


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster at `address`; if None, start a local one and stop it at the end."""
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
                    _check_listening(address)
                with defer_interrupts(), _stderr_muted():
                    run_in_thread(functools.partial(ray.init, address or "local", **options), until=over)
            except (OSError, RuntimeError, ValueError, ImportError) as error:
                what = f"cannot connect to the Ray cluster {address}" if address else "cannot start Ray on this machine"
                raise MachineError(f"{what} ({first_line(error)}). Check ray status and --cluster.") from error
            yield
        finally:
            with defer_interrupts(), _stderr_muted():
                run_in_thread(ray.shutdown)
            over.set()


def _check_listening(address: str) -> None:
    """Raise OSError if no process listens at `address`; Ray would retry for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT).close()


def _allocate(nodes: Sequence[Mapping[str, Any]], request: ClusterRequest) -> Cluster:
    """Fit as many equal workers as possible onto the machines: one per GPU if there are any, else by their cores."""
    machines = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    with_gpus = [machine for machine in machines if machine.get("GPU", 0) >= 1] if request.device != "cpu" else []
    if request.device == "cuda" and not with_gpus:
        raise MachineError("--device cuda: no machine of the Ray cluster has a GPU. Use --device cpu (or auto).")
    gpus = 1 if with_gpus else 0
    usable = with_gpus or machines
    each = [max(1, int(machine["CPU"] // machine["GPU"])) if gpus else int(machine["CPU"]) for machine in usable]
    per_worker = request.cores or min([*each, *([] if gpus else [DEFAULT_CORES])])
    by_cores = [int(machine["CPU"] // per_worker) for machine in usable]
    workers = sum(map(min, by_cores, [int(machine["GPU"]) for machine in usable]) if gpus else by_cores)
    if not workers:
        raise MachineError(f"no machine of the Ray cluster has {per_worker} cores for a worker. Use fewer --cores.")
    return Cluster(workers=workers, cores=per_worker, gpus=gpus)


@contextlib.contextmanager
def _stderr_muted() -> Iterator[None]:
    """Discard standard error, on which Ray's C++ code and its threads report that they start and stop."""
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the duration of the block, except those that the user has set."""
    ours = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; the name of its class if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
