"""MLflow: a run at `MLFLOW_TRACKING_URI`, or in `mlflow.db` and `mlruns` of the working directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlcli.storage.urls import Location
from tlcli.tracking.tracker import ARTIFACTS, unless_set

unless_set(
    MLFLOW_DISABLE_TELEMETRY="true",  # no telemetry
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",  # standard output is for results
    MLFLOW_LOGGING_LEVEL="WARNING",
    MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",  # otherwise an unresponsive server delays training by 15 minutes
    MLFLOW_HTTP_REQUEST_TIMEOUT="30",
)

import mlflow  # noqa: E402


class Mlflow:
    """An MLflow run; nested if another one is active."""

    def start(self, out: Location, settings: Mapping[str, Any], known: str | None) -> tuple[str, str]:
        """See `Tracker`."""
        nested = mlflow.active_run() is not None
        self._id: str = mlflow.start_run(known, run_name=out.name, nested=nested).info.run_id
        mlflow.log_params(dict(settings), run_id=self._id)
        return self._id, f"{mlflow.get_tracking_uri()}, run {self._id}"

    def line(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        mlflow.log_metrics(dict(values), step=step, run_id=self._id)

    def finish(self, run: Path, resolved: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """See `Tracker`."""
        mlflow.log_params(dict(resolved), run_id=self._id)
        mlflow.log_metrics(dict(metrics), run_id=self._id)
        for name in ARTIFACTS:
            mlflow.log_artifact(str(run / name), run_id=self._id)
        mlflow.end_run()

    def stop(self) -> None:
        """See `Tracker`."""
        mlflow.end_run("KILLED")
