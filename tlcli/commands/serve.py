"""`tlcli serve`: answer requests over HTTP with the predictions of a run."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue

from tlcli.errors import TlcliError, from_os_error
from tlcli.progress import Reporter, Silent
from tlcli.settings import ServeSettings
from tlcli.web.serve.app import serve_app
from tlcli.web.serve.service import Service
from tlcli.web.server import Address, address_of, listen, new_token, serving

STOP_SECONDS = 60
"""Time for requests in progress to be answered when the server stops."""
CHECK_SECONDS = 0.1
"""How often `stop` is checked."""


def serve(
    settings: ServeSettings,
    report: Reporter | None = None,
    *,
    announce: Callable[[Address], None],
    stop: threading.Event | None = None,
) -> None:
    """Serve a run until `stop` is set, or a signal ends the command. Requests in progress are then answered.

    In the main thread, SIGHUP loads the run again if it has changed.

    Args:
        settings: The run and the address.
        report: Receives messages.
        announce: Called with the address once the server listens.
        stop: Ends the server; None waits for a signal.

    Raises:
        ArtifactError: The run is damaged, or it is not a run.
        MachineError: The address is taken, or the device is missing.
    """
    report = report or Silent()
    if settings.open and settings.host not in {"127.0.0.1", "::1", "localhost"}:
        report.warn(f"--no-token with --host {settings.host}: anybody on the network can send images.")
    token = None if settings.open else settings.token or new_token()
    with (
        listen(settings.host, settings.port) as listening,
        Service(settings.run, device=settings.device, workers=settings.workers) as service,
        _hangups() as hangups,
    ):
        address = address_of(listening, settings.host, token)
        batcher = service.batcher
        report.note(f"{settings.run}: {len(batcher.run.classes):,} classes, {batcher.model_name}")
        application = serve_app(service, token=token, host=settings.host, page=settings.page)
        with serving(application, listening, stop_seconds=STOP_SECONDS):
            announce(address)
            batcher.start()
            while stop is None or not stop.is_set():
                try:
                    hangups.get(timeout=None if stop is None else CHECK_SECONDS)
                except Empty:
                    continue
                _reload(service, report)


def _reload(service: Service, report: Reporter) -> None:
    """Load the run again if it has changed; if it cannot be loaded, the one in memory stays in service."""
    try:
        changed = service.reload()
    except (TlcliError, OSError) as error:
        reason = error if isinstance(error, TlcliError) else from_os_error(error)
        report.warn(f"{service.location} could not be reloaded; the previous version is still served: {reason.message}")
        return
    report.note(f"{service.location} {'was reloaded' if changed else 'is unchanged'}.")


@contextmanager
def _hangups() -> Iterator[SimpleQueue[None]]:
    """Count SIGHUPs in a queue, if this is the main thread.

    A terminal that is closed also sends SIGHUP; it then becomes SIGTERM.
    """
    hangups: SimpleQueue[None] = SimpleQueue()  # which, unlike other queues, may be used in signal handlers
    if threading.current_thread() is not threading.main_thread():
        yield hangups
        return
    had_terminal = sys.stderr.isatty()

    def handle(number: int, frame: object) -> None:
        if had_terminal and not sys.stderr.isatty():
            signal.raise_signal(signal.SIGTERM)
        else:
            hangups.put(None)

    before = signal.signal(signal.SIGHUP, handle)
    try:
        yield hangups
    finally:
        signal.signal(signal.SIGHUP, before)
