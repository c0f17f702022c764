"""What the rows of predict contain, from its settings. Torch-free."""

from __future__ import annotations

from typing import Any

from tlcli.errors import UsageError
from tlcli.inference.decisions import decide
from tlcli.inference.novelty import NO_NOVELTY
from tlcli.inference.rows import RowOptions
from tlcli.progress import Reporter
from tlcli.runs.run import Run
from tlcli.settings import DEFAULT_UNKNOWN_RATE, PredictSettings


def row_options(run: Run, settings: PredictSettings, report: Reporter) -> tuple[RowOptions, dict[str, Any]]:
    """Return what the rows contain, and what they promise; report it, or that the run cannot tell unknown images.

    Raises:
        UsageError: A setting has no effect with this run, or names a class that it does not have.
        DataError: The run held out too few images for a promise.
        ArtifactError: The run's predictions are damaged.
    """
    decisions = decide(run, settings.target_precisions.of(run.classes), settings.sets, report)
    if not run.has_novelty:
        if settings.unknown_rate:
            raise UsageError(
                f"--unknown-rate has no effect: {settings.run} {NO_NOVELTY}. Train again, or remove the option."
            )
        report.note(f"Unknown   images are not recognized: the run {NO_NOVELTY}")
    options = RowOptions(
        top=settings.top,
        probabilities=settings.probabilities,
        min_confidence=settings.min_confidence,
        novelty=run.has_novelty,
        unknown_rate=DEFAULT_UNKNOWN_RATE if settings.unknown_rate is None else settings.unknown_rate,
        thresholds=decisions.thresholds,
        set_limit=decisions.set_limit,
    )
    return options, decisions.metrics
