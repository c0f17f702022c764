"""All trackers of a run. A tracker failure never stops training."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tlcli.errors import ArtifactError, MachineError, TlcliError
from tlcli.progress import Reporter
from tlcli.storage.files import read_sealed, sealed, write_json
from tlcli.storage.urls import Location
from tlcli.tracking.tracker import Tracker, curve_points, flatten, metrics_of, resolved_settings

FORMAT = 1
"""Version of `STATE_FILE`."""
STATE_FILE = "trackers.json"
"""The file in the checkpoint folder that holds the IDs of the trackers' runs."""

Line = dict[str, Any]
"""A line of `metrics.jsonl`."""


def open_tracker(name: str) -> Tracker:
    """Create a tracker by its name, one of `settings.TRACKERS`.

    Raises:
        MachineError: its library is not installed.
    """
    try:
        match name:
            case "tensorboard":
                from tlcli.tracking.tensorboard import TensorBoard

                return TensorBoard()
            case "mlflow":
                from tlcli.tracking.mlflow import Mlflow

                return Mlflow()
            case _:
                from tlcli.tracking.wandb import Wandb

                return Wandb()
    except ImportError as error:
        raise MachineError(
            f"--track {name} needs a package that is not installed ({error}). Install it: pip install 'tlcli[{name}]'"
        ) from error


class Tracking:
    """Reports a run to every tracker that was opened. A tracker that fails is disabled with a warning.

    Args:
        report: Receives notes about where they write, and warnings about failures.
    """

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._opened: dict[str, Tracker] = {}
        self._trackers: dict[str, Tracker] = {}
        """Those that were started and have not failed."""
        self._state_file: Path | None = None
        self._known: dict[str, dict[str, Any]] = {}
        """For each tracker its run's `id`, and the number of `lines` it has received."""

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._each(lambda _, tracker: tracker.stop())

    def open(self, names: Sequence[str]) -> None:
        """Load the libraries of trackers, in the process that reports.

        Args:
            names: Names of the trackers.

        Raises:
            MachineError: a library is not installed.
        """
        self._opened = {name: open_tracker(name) for name in names}

    def start(self, out: Location, settings: dict[str, Any], checkpoints: Path, *, resume: bool) -> None:
        """Start the trackers' runs, or resume them.

        Args:
            out: The final location of the run.
            settings: The settings as in `run.json`.
            checkpoints: The folder of the run's checkpoints, which need not exist.
            resume: Resume the runs that `checkpoints` names.
        """
        self._state_file = checkpoints / STATE_FILE
        if resume and self._opened and self._state_file.exists():
            self._load_known(self._state_file)
        for name, tracker in self._opened.items():
            with self._optional(name):
                known = self._known.get(name, {"lines": 0})
                known["id"], where = tracker.start(out, flatten(settings), known.get("id"))
                self._known[name], self._trackers[name] = known, tracker
                self._report.note(f"Tracking  {name}: {_without_password(where)}")

    def _load_known(self, path: Path) -> None:
        try:
            self._known = read_sealed(path, "the runs of trackers", form=FORMAT)["trackers"]
        except ArtifactError as error:
            self._report.warn(f"{error.message} The trackers start new runs.")

    def lines(self, lines: Sequence[Line]) -> None:
        """Send each tracker the lines that it has not received.

        Call it again once the checkpoint folder exists, so that the IDs of the runs are saved in it.

        Args:
            lines: All lines of `metrics.jsonl` so far.
        """
        self._send(lines)
        if self._known and self._state_file is not None:
            with contextlib.suppress(OSError):  # not worth stopping for; if resumed, trackers start new runs
                write_json(self._state_file, sealed({"format": FORMAT, "trackers": self._known}))

    def finish(self, run: Path, info: dict[str, Any], lines: Sequence[Line]) -> None:
        """Report the finished run.

        Args:
            run: The directory of the finished run.
            info: The content of its `run.json`.
            lines: All lines of `metrics.jsonl`.
        """
        try:
            self._send(lines)
            self._each(lambda name, _: self._trackers.pop(name).finish(run, resolved_settings(info), metrics_of(info)))
        except BaseException as error:
            error.add_note("Training is finished; only the report to its trackers was interrupted.")
            raise

    def _send(self, lines: Sequence[Line]) -> None:
        def send(name: str, tracker: Tracker) -> None:
            known = self._known[name]
            for step in range(known["lines"] + 1, len(lines) + 1):
                tracker.line(step, curve_points(lines[step - 1]))
                known["lines"] = step

        self._each(send)

    def _each(self, call: Callable[[str, Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._optional(name):
                call(name, tracker)

    @contextlib.contextmanager
    def _optional(self, name: str) -> Iterator[None]:
        """Disable a tracker that fails, for whatever reason: server, login, disk, bug."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a library may raise anything
            self._trackers.pop(name, None)
            message = error.message if isinstance(error, TlcliError) else f"{type(error).__name__}: {error}"
            message = _without_password(" ".join(message.split()))[:300]
            self._report.warn(f"{name} failed and was disabled; training continues. {message}")


def _without_password(text: str) -> str:
    """Remove passwords from addresses, which libraries repeat in their errors."""
    return re.sub(r"//[^/\s]*@", "//", text)
