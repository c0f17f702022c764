"""What every tracker does, and how a run reads to one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tlcli.storage.urls import Location

ARTIFACTS = ("report.html", "model.safetensors", "config.json", "run.json")
"""Files of a run that are handed over."""
_FOUND = ("tlcli", "backbone", "weights", "freeze", "device", "precision", "engine", "head", "versions")
_FIGURES = ("validation", "test", "images", "seconds", "temperature")


class Tracker(Protocol):
    """One library's run. Whatever a method raises, the training goes on without the tracker."""

    def start(self, out: Location, settings: Mapping[str, Any], known: str | None) -> tuple[str, str]:
        """Begin, or go on.

        Args:
            out: Where the run will be in the end; the tracker's run is named after it.
            settings: By name, flat.
            known: What `start` returned for this run before; None begins a new one.

        Returns:
            What to go on by, and where to look, for a person.
        """

    def line(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve. `step` counts the lines of `metrics.jsonl`, from 1."""

    def finish(self, run: Path, found: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """Hand over what the finished run at `run` is and how good it is, with its `ARTIFACTS`."""

    def stop(self) -> None:
        """End a run that did not finish."""


def unless_set(**variables: str) -> None:
    """Set environment variables, which libraries read as they are imported, but none that the user set."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with a slash between the names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """What of a flat dictionary can be drawn."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def curve_points(line: Mapping[str, Any]) -> dict[str, float]:
    """A line of `metrics.jsonl`: of an epoch, or of the sweep over L2."""
    return numbers(flat(line, "epochs/" if "epoch" in line else "sweep/"))


def found_by(info: Mapping[str, Any]) -> dict[str, Any]:
    """What `run.json` says that the settings did not."""
    counts = {"classes": len(info["classes"])}
    return flat({name: info[name] for name in _FOUND} | counts, "run/")


def figures_of(info: Mapping[str, Any]) -> dict[str, float]:
    """How good a run is, how large and how long, from its `run.json`; each class's own figures stay in the report."""
    figures = flat({name: info[name] for name in _FIGURES if info[name] is not None})
    return {name: value for name, value in numbers(figures).items() if "/per_class/" not in name}
