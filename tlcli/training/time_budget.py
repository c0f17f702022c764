"""The time that a run may take (`--budget`): what fits into it, estimated from a few batches before work begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tlcli import processes
from tlcli.errors import UsageError
from tlcli.features.extractor import FeatureExtractor
from tlcli.progress import OnlyDetails
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
    """The `time.monotonic()` of the first process at which the run began."""

    @property
    def deadline(self) -> float:
        """The `time.monotonic()` at which training ends, so that there is time for what follows it."""
        return self.started + self.seconds - CLOSING

    def check(self, extractor: FeatureExtractor, paths: Sequence[str], *, verify: bool) -> None:
        """Report what the features and the head take, and what is left. The features of a few images are computed.

        Raises:
            UsageError: the head alone does not fit.
        """
        found = _feature_seconds(extractor, paths, verify=verify)  # by all processes together
        spent, features = processes.from_first(lambda: (time.monotonic() - self.started, found))
        needed = spent + features + HEAD * len(paths) + CLOSING
        if needed > self.seconds:
            raise UsageError(
                f"--budget is {describe_duration(self.seconds)}; expected at least {describe_duration(needed)}, which "
                f"the head alone takes: so far {describe_duration(spent)}, features about "
                f"{describe_duration(features)}, export and report up to {describe_duration(CLOSING)}. Features that "
                "are computed stay in the cache."
            )
        extractor.network.report.note(
            f"Budget    {describe_duration(self.seconds)}: features take about {describe_duration(features)}, "
            f"export and report up to {describe_duration(CLOSING)}; {describe_duration(self.seconds - needed)} are left"
        )


def _feature_seconds(extractor: FeatureExtractor, paths: Sequence[str], *, verify: bool) -> float:
    """Estimate the seconds that the features of images take which are not in the cache, from the first ones."""
    extractor = extractor.reporting_to(OnlyDetails(extractor.network.report))
    extractor.extract(paths[:WARM_UP], verify=verify)
    found = extractor.extract(paths[WARM_UP : WARM_UP + PROBED], verify=verify)
    if not found.computed:
        return 0.0
    return max(0, len(paths) - WARM_UP - PROBED) * found.seconds / found.computed
