"""TensorBoard: event files beside the run, written with torch's `SummaryWriter`."""

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
"""The folder of the event files. It is beside the run, whose directory may contain only the run's files."""


class TensorBoard:
    """Writes to `tensorboard/RUN` beside RUN (in `runs` if RUN is at a URL), or to `RUN-2`, ... if that exists."""

    def start(self, out: Location, settings: Mapping[str, Any], known: str | None) -> tuple[str, str]:
        """See `Tracker`."""
        if out.name == LOGS:
            raise UsageError(f"a run named {LOGS} would contain its own event files. Choose another --out.")
        logs = (out.parent if isinstance(out, Path) else Path("runs")) / LOGS
        names = chain([out.name], (f"{out.name}-{number}" for number in count(2)))
        folder = logs / (known or next(name for name in names if not (logs / name).exists()))
        self._run, self._settings = absolute(out), dict(settings)
        self._writer = SummaryWriter(str(folder))
        return folder.name, f"{folder}, view with tensorboard --logdir {shlex.quote(str(logs))}"

    def line(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, run: Path, resolved: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """See `Tracker`. TensorBoard stores no files, so it gets the paths of the artifacts."""
        parameters = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in (self._settings | dict(resolved)).items()
        }
        paths = "\n".join(f"- `{self._run.rstrip('/')}/{name}`" for name in ARTIFACTS)
        self._writer.add_text("run", paths)
        self._writer.add_hparams(parameters, dict(metrics), run_name=".")
        self._writer.close()

    def stop(self) -> None:
        """See `Tracker`."""
        self._writer.close()
