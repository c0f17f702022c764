"""The interface of a tracker, and the conversion of a run to flat settings, metrics and curve points."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tlcli.storage.urls import Location

ARTIFACTS = ("report.html", "model.safetensors", "config.json", "run.json")
"""Files of a run that a tracker stores."""
_RESOLVED = ("tlcli", "backbone", "weights", "freeze", "device", "precision", "engine", "head", "versions")
_METRICS = ("validation", "test", "images", "seconds", "temperature")


class Tracker(Protocol):
    """A run of one tracking library. If a method raises, training continues without the tracker."""

    def start(self, out: Location, settings: Mapping[str, Any], known: str | None) -> tuple[str, str]:
        """Start a run, or resume one.

        Args:
            out: The final location of the run, which gives the tracker's run its name.
            settings: Flat dictionary of settings.
            known: ID of the run to resume, as returned by `start`; None starts a new one.

        Returns:
            The ID for resuming, and where a user finds the run.
        """

    def line(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve. `step` counts the lines of `metrics.jsonl`, from 1."""

    def finish(self, run: Path, resolved: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Store the resolved settings, the metrics and the `ARTIFACTS` of the finished run at `run`."""

    def stop(self) -> None:
        """End a run that did not finish."""


def unless_set(**variables: str) -> None:
    """Set environment variables, except those that the user has set. Libraries read them on import."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries, joining their keys with slashes."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flatten(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def numeric_entries(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numeric entries of a flat dictionary."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def curve_points(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the curve points of a line of `metrics.jsonl`, which describes an epoch or a value of the L2 sweep."""
    return numeric_entries(flatten(line, "epochs/" if "epoch" in line else "sweep/"))


def resolved_settings(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the resolved settings in `run.json`, such as the chosen engine."""
    counts = {"classes": len(info["classes"])}
    return flatten({name: info[name] for name in _RESOLVED} | counts, "run/")


def metrics_of(info: Mapping[str, Any]) -> dict[str, float]:
    """Metrics, counts and durations in `run.json`, without the metrics of single classes."""
    metrics = flatten({name: info[name] for name in _METRICS if info[name] is not None})
    return {name: value for name, value in numeric_entries(metrics).items() if "/per_class/" not in name}
