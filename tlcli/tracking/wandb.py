"""Weights & Biases: a run at `WANDB_BASE_URL`, or with `WANDB_MODE=offline` in `wandb/` of the working directory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlcli.errors import MachineError
from tlcli.storage.urls import Location
from tlcli.tracking.tracker import ARTIFACTS, unless_set

unless_set(
    WANDB_ERROR_REPORTING="false",  # no telemetry
    WANDB_INIT_TIMEOUT="30",  # otherwise an unresponsive server delays the start of training, and blocks its end
    WANDB_FINISH_TIMEOUT="600",
)

import wandb  # noqa: E402


class Wandb:
    """A run of Weights & Biases; independent of an active one."""

    def start(self, out: Location, settings: Mapping[str, Any], known: str | None) -> tuple[str, str]:
        """See `Tracker`."""
        mode = wandb.setup().settings.mode
        if mode not in {"offline", "dryrun", "disabled"} and not wandb.login(prompt=False):
            raise MachineError("not logged in. Log in with wandb login, or set WANDB_MODE=offline.")
        self._run = wandb.init(
            id=known,
            name=out.name,
            config=dict(settings),
            resume="allow" if known else None,
            reinit="create_new",
            # Neither capture the terminal's output nor print to it.
            settings=wandb.Settings(console="off", silent=True, finish_timeout_raises=True),
        )
        if self._run.offline:
            return self._run.id, f"{Path(self._run.dir).parent}, upload it with wandb sync"
        return self._run.id, str(self._run.url)

    def line(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log(dict(values), step=step)

    def finish(self, run: Path, resolved: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.config.update(dict(resolved))
        self._run.summary.update(dict(metrics))
        model = wandb.Artifact(re.sub(r"[^\w.-]", "-", run.name, flags=re.ASCII) or "run", type="model")
        for name in ARTIFACTS:
            model.add_file(str(run / name))
        self._run.log_artifact(model)
        self._run.finish()

    def stop(self) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=1)
