"""TensorBoard: event files beside the run, written by torch's own writer."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from tlcli.errors import UsageError
from tlcli.storage.urls import Location, absolute
from tlcli.tracking.tracker import ARTIFACTS

LOGS = "tensorboard"
"""The folder beside the run: within it, nothing but the run's own files is allowed."""


class TensorBoard:
    """Writes to `tensorboard/RUN` beside RUN, in `runs` for one at a URL; to `RUN-2` where that is another's."""

    def start(self, out: Location, settings: Mapping[str, Any], known: str | None) -> tuple[str, str]:
        """See `Tracker`."""
        if out.name == LOGS:
            raise UsageError(f"a run called {LOGS} would hold its own logs. Choose another --out.")
        logs = (out.parent if isinstance(out, Path) else Path("runs")) / LOGS
        names = chain([out.name], (f"{out.name}-{number}" for number in count(2)))
        folder = logs / (known or next(name for name in names if not (logs / name).exists()))
        self._run, self._settings = absolute(out), dict(settings)
        self._writer = SummaryWriter(str(folder))
        return folder.name, f"{folder}, see tensorboard --logdir {shlex.quote(str(logs))}"

    def line(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, run: Path, found: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """See `Tracker`. TensorBoard keeps no files, so of the artifacts it gets the paths."""
        said = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in (self._settings | dict(found)).items()
        }
        paths = "\n".join(f"- `{self._run.rstrip('/')}/{name}`" for name in ARTIFACTS)
        self._writer.add_text("run", paths)
        self._writer.add_hparams(said, dict(figures), run_name=".")
        self._writer.close()

    def stop(self) -> None:
        """See `Tracker`."""
        self._writer.close()
