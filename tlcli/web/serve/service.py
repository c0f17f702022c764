"""The run that is served, and its replacement while requests are answered."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from tlcli.runs.run import load_run
from tlcli.storage.files import portable_name
from tlcli.storage.urls import Location, Url
from tlcli.web.serve.batcher import Batcher


class Service:
    """The run that is served. Thread-safe. Use it as a context manager; leaving it waits for requests in progress.

    Args:
        location: The run.
        device: See `Predictor`.
        workers: Number of decoder processes; None starts one per core.

    Raises:
        ArtifactError: It is not a run, or it is damaged.
        MachineError: The device is missing.
    """

    def __init__(self, location: Location, *, device: str, workers: int | None) -> None:
        self.location = location
        self._device = device
        self._workers = workers
        self._changed = threading.Condition()
        self._users: dict[Batcher, int] = {}
        self._batcher = Batcher(load_run(location), device=device, workers=workers)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exception: object) -> None:
        self._retire(self._batcher)

    @property
    def name(self) -> str:
        """The name of the run's directory."""
        location = self.location
        return location.name if isinstance(location, Url) else portable_name(location.resolve().name)

    @property
    def batcher(self) -> Batcher:
        """The run's batcher; requests `borrow` it."""
        return self._batcher

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Batcher]:
        """Use the run for one request, which keeps it open if another one replaces it."""
        with self._changed:
            batcher = self._batcher
            self._users[batcher] = self._users.get(batcher, 0) + 1
        try:
            yield batcher
        finally:
            with self._changed:
                self._users[batcher] -= 1
                self._changed.notify_all()

    def reload(self) -> bool:
        """Serve the run as it is now on disk. Requests in progress are answered by the run that they began with.

        Returns:
            Whether the run had changed.

        Raises:
            ArtifactError: It is damaged. The run that was loaded before stays in service.
            MachineError: It cannot be reached, or a decoder process does not start.
        """
        run = load_run(self.location)
        old = self._batcher
        if run.info["sha256"] == old.run.info["sha256"]:
            return False
        new = Batcher(run, device=self._device, workers=self._workers)
        try:
            new.start()
        except BaseException:
            new.close()
            raise
        with self._changed:
            self._batcher = new
        self._retire(old)
        return True

    def _retire(self, batcher: Batcher) -> None:
        """Close a batcher when its last request is answered."""
        with self._changed:
            self._changed.wait_for(lambda: not self._users.get(batcher))
            self._users.pop(batcher, None)
        batcher.close()
