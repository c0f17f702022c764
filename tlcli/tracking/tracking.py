"""A run's trackers together: a run doesn't depend on them."""

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
from tlcli.tracking.tracker import Tracker, curve_points, figures_of, flat, found_by

FORMAT = 1
"""Version of what stands in `MEMORY`."""
MEMORY = "trackers.json"
"""The file, among the checkpoints, of what to go on by."""

Line = dict[str, Any]


def open_tracker(name: str) -> Tracker:
    """The tracker of that name, one of `settings.TRACKERS`.

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
    """Tells every tracker of a run. One that fails is left out from then on, with a warning.

    Args:
        names: Of the trackers.
        report: Told where they write, and of those that fail.

    Raises:
        MachineError: a library is not installed.
    """

    def __init__(self, names: Sequence[str], report: Reporter) -> None:
        self._report = report
        self._opened = {name: open_tracker(name) for name in names}
        self._trackers: dict[str, Tracker] = {}
        """Those that were started, and have not failed."""
        self._memory: Path | None = None
        self._known: dict[str, dict[str, Any]] = {}
        """Of each tracker `id`, which it goes on by, and how many `lines` it has."""

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._each(lambda _, tracker: tracker.stop())

    def start(self, out: Location, settings: dict[str, Any], checkpoints: Path, *, resume: bool) -> None:
        """Begin the trackers' runs, or go on with them.

        Args:
            out: Where the run will be in the end.
            settings: As `run.json` has them.
            checkpoints: The folder of the run's checkpoints; it needn't be there.
            resume: Go on with what was begun.
        """
        self._memory = checkpoints / MEMORY
        if resume and self._opened and self._memory.exists():
            self._remember(self._memory)
        for name, tracker in self._opened.items():
            with self._optional(name):
                known = self._known.get(name, {"lines": 0})
                known["id"], where = tracker.start(out, flat(settings), known.get("id"))
                self._known[name], self._trackers[name] = known, tracker
                self._report.note(f"Tracking  {name}: {_without_password(where)}")

    def _remember(self, path: Path) -> None:
        try:
            self._known = read_sealed(path, "what trackers were told", form=FORMAT)["trackers"]
        except ArtifactError as error:
            self._report.warn(f"{error.message} The trackers begin new runs.")

    def lines(self, lines: Sequence[Line]) -> None:
        """Tell of those of all lines of `metrics.jsonl` so far that a tracker doesn't have yet.

        To be called when the folder of checkpoints is there, too, so that it is known what to go on by.
        """
        self._tell(lines)
        if self._known and self._memory is not None:
            with contextlib.suppress(OSError):  # or trackers would cost the training; resumed, they begin new runs
                write_json(self._memory, sealed({"format": FORMAT, "trackers": self._known}))

    def finish(self, run: Path, info: dict[str, Any], lines: Sequence[Line]) -> None:
        """Hand over the finished run.

        Args:
            run: Its directory.
            info: Content of its `run.json`.
            lines: All of `metrics.jsonl`.
        """
        try:
            self._tell(lines)
            self._each(lambda name, _: self._trackers.pop(name).finish(run, found_by(info), figures_of(info)))
        except BaseException as error:
            error.add_note("The training is finished; what was stopped is telling its trackers.")
            raise

    def _tell(self, lines: Sequence[Line]) -> None:
        def tell(name: str, tracker: Tracker) -> None:
            known = self._known[name]
            for step in range(known["lines"] + 1, len(lines) + 1):
                tracker.line(step, curve_points(lines[step - 1]))
                known["lines"] = step

        self._each(tell)

    def _each(self, tell: Callable[[str, Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._optional(name):
                tell(name, tracker)

    @contextlib.contextmanager
    def _optional(self, name: str) -> Iterator[None]:
        """A server, a login, a disk or a bug of a tracker: none is worth the training."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a library may raise anything
            self._trackers.pop(name, None)
            said = error.message if isinstance(error, TlcliError) else f"{type(error).__name__}: {error}"
            said = _without_password(" ".join(said.split()))[:300]
            self._report.warn(f"{name} is told no more, the run goes on without it. {said}")


def _without_password(text: str) -> str:
    """An address may hold one, and libraries repeat addresses in their errors."""
    return re.sub(r"//[^/\s]*@", "//", text)
