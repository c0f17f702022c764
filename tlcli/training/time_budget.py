"""The time that a run may take (`--budget`): what fits into it, estimated from a few batches before work begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tlcli import processes
from tlcli.errors import UsageError
from tlcli.features.extractor import FeatureExtractor
from tlcli.progress import OnlyDetails, Reporter
from tlcli.settings.durations import describe_duration

CLOSING = 15.0
"""Seconds for the export, the report, and the files of the run."""
HEAD = 2e-3
"""Seconds for each image to fit the head, with all its folds."""
WARM_UP, PROBED = 16, 96
"""Images whose features are computed to measure the time of an image: first some to start processes, then these."""


@dataclass(frozen=True, kw_only=True)
class TimeBudget:
    """The time that a run may take."""

    seconds: float
    started: float
    """The `time.monotonic()` at which the run began."""

    @property
    def deadline(self) -> float:
        """The `time.monotonic()` at which training ends, so that there is time for what follows it."""
        return self.started + self.seconds - CLOSING

    def check(self, extractor: FeatureExtractor, paths: Sequence[str], *, verify: bool) -> None:
        """Report what the features and the head take, and what is left. The features of a few images are computed.

        Raises:
            UsageError: the head alone does not fit.
        """
        report = extractor.network.report
        features = processes.from_first(lambda: _feature_seconds(extractor, paths, verify=verify))
        needed = time.monotonic() - self.started + features + HEAD * len(paths) + CLOSING
        if needed > self.seconds:
            raise UsageError(
                f"--budget: the head alone takes about {describe_duration(needed)} (features of {len(paths):,} images "
                f"{describe_duration(features)}), and the budget is {describe_duration(self.seconds)}. Give more time, "
                "or compute the features first, with tlcli cache-features."
            )
        self._report(report, features, needed)

    def _report(self, report: Reporter, features: float, needed: float) -> None:
        report.note(
            f"Budget    {describe_duration(self.seconds)}: features take about {describe_duration(features)}, "
            f"evaluation and report {describe_duration(CLOSING)}; {describe_duration(self.seconds - needed)} are left "
            "to train layers"
        )


def _feature_seconds(extractor: FeatureExtractor, paths: Sequence[str], *, verify: bool) -> float:
    """Estimate the seconds that the features of images take which are not in the cache, from the first ones."""
    extractor = extractor.reporting_to(OnlyDetails(extractor.network.report))
    extractor.extract(paths[:WARM_UP], verify=verify)
    found = extractor.extract(paths[WARM_UP : WARM_UP + PROBED], verify=verify)
    if not found.computed:
        return 0.0
    return max(0, len(paths) - WARM_UP - PROBED) * found.seconds / found.computed
