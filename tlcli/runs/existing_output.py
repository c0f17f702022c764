"""Decide what to do with an existing run: replace it, resume it, or return it if it is finished."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlcli.errors import ArtifactError, DataError
from tlcli.runs.directory import unfinished_job, unfinished_name, unfinished_run
from tlcli.runs.run import load_run
from tlcli.storage.urls import Location, Url


@dataclass(frozen=True, kw_only=True)
class OutputIntent:
    """Where a run is written, and whether an existing one may be replaced or resumed."""

    location: Location | None
    """None uses the next free name."""
    overwrite: bool
    resume: bool


def after_restart(intent: OutputIntent, data: Location, *, job: str, restarts: int) -> OutputIntent:
    """Return the intent after torchrun restarts the same command line: resume, even with `--overwrite`.

    Args:
        intent: As on the command line.
        data: DATA, after which runs are named.
        job: torchrun's name for the processes, from `ProcessRank`.
        restarts: How often torchrun restarted them.
    """
    out = intent.location or (unfinished_name(data, job) if job or restarts else None)
    if isinstance(out, Url):
        return replace(intent, resume=True, overwrite=False) if restarts else intent
    if out is None or (unfinished_job(out) != job if job else not restarts):
        return intent
    resume = unfinished_run(out) is not None or not intent.overwrite
    return OutputIntent(location=out, resume=resume, overwrite=not resume)


def finished_info(directory: Path, settings: dict[str, Any], location: Location | None) -> dict[str, Any]:
    """Return the content of a finished run's `run.json`, with `was_finished`.

    Args:
        directory: The run, or the local copy of a run at a URL.
        settings: Settings of the command line, from `settings_to_json`.
        location: The run, for messages.

    Raises:
        ArtifactError: the run was made with different settings, or is damaged.
        DataError: its training stopped at a loss that was NaN or infinite.
    """
    info = load_run(directory).info
    made = info["settings"]
    changed = [
        f"{name} was {made.get(name)!r} and is {settings[name]!r}"
        for name in settings
        if settings[name] != made.get(name)
    ]
    if changed:
        raise ArtifactError(
            f"{directory} is finished, but with different settings: {'; '.join(changed)}. Choose another --out, or "
            "replace the run with --overwrite.",
            path=directory,
        )
    if stopped := (info.get("training") or {}).get("stopped"):
        raise not_finite(stopped, location)
    return {"was_finished": True} | info


def not_finite(where: str, location: Location | None) -> DataError:
    """Return the error of a training that stopped because its loss became NaN or infinite.

    Args:
        where: Epoch and step of the loss.
        location: The run, as given by the user.
    """
    return DataError(
        f"the loss became NaN or infinite at {where}. {location} holds the best weights before that. Try a smaller "
        "--learning-rate, or --precision fp32.",
        path=location,
    )
