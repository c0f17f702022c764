"""`--augment auto`: which augmentations help, and how strong they should be, by the head on cached views."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tlcli.features.extractor import FeatureExtractor
from tlcli.progress import Reporter
from tlcli.settings.augmentation import Augmentation
from tlcli.training.choices.comparison import CLEAR, Comparison, Measured, measure
from tlcli.training.choices.subset import Subset
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.paired_gain import Gain

COMPARED_VIEWS = 2
"""Augmented views of each image in the comparison, whose time they determine."""
VIEWS = 4
"""Augmented views of each image in training, with `--freeze all`."""
STRENGTHS: dict[str, tuple[Any, ...]] = {
    "mirror": (True,),
    "flip_vertical": (True,),
    "rotate": (5.0, 15.0, 30.0),
    "crop": (0.8, 0.5, 0.3),
    "color_shift": (10, 30),
    "noise": (4.0, 8.0),
}
"""Amounts of each augmentation to try, weak to strong."""
SINGLES = [(name, amount) for name, amounts in STRENGTHS.items() for amount in amounts]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An augmentation that was compared."""

    augmentation: Augmentation
    measured: Measured
    gain: Gain | None
    """None for the first candidate."""

    @property
    def mean(self) -> float:
        """The mean gain."""
        return self.gain.mean if self.gain else 0.0


def compare_augmentations(
    extractor: FeatureExtractor, subset: Subset, weighting: ClassWeighting, report: Reporter
) -> tuple[Comparison, Augmentation]:
    """Choose augmentations greedily: the best single one first, then others that helped alone, while they help more.

    Views of candidates are kept in memory only.

    Args:
        extractor: The network, cut before its head.
        subset: The images to compare on.
        weighting: The weights of the classes.
        report: Receives progress.

    Returns:
        What was tried, and the best; nothing if none is clearly better than none.
    """
    comparison = Comparison(name="Augment", subset=subset)

    most = len(SINGLES) + len(STRENGTHS)  # none, single ones, and one more for each but the best
    with report.task("Augment", most, "candidates") as advance:

        def add(augmentation: Augmentation) -> Candidate:
            started = time.monotonic()
            own = extractor.with_views_in_memory(augmentation) if augmentation.enabled else extractor
            measured = measure(own, subset, weighting, views=COMPARED_VIEWS if augmentation.enabled else 0)
            seconds = time.monotonic() - started
            gain = comparison.add(augmentation.describe(), measured, seconds)
            advance(1)
            if len(comparison.tried) == 2:
                report.note(f"Augment   compares up to {most} candidates, for about {seconds:.0f} s each")
            return Candidate(augmentation=augmentation, measured=measured, gain=gain)

        best = _search(comparison, add)
        advance(most - len(comparison.tried))
    return comparison, best


def _search(comparison: Comparison, add: Callable[[Augmentation], Candidate]) -> Augmentation:
    none = add(Augmentation())
    comparison.choose("none", none.measured)
    alone = {single: add(replace(Augmentation(), **dict([single]))) for single in SINGLES}
    clear = [candidate for candidate in alone.values() if candidate.gain and candidate.gain.exceeds(CLEAR)]
    if not clear:
        return none.augmentation
    best = max(clear, key=lambda candidate: candidate.mean)
    comparison.choose(best.augmentation.describe(), best.measured)
    for name, amount in _helpful(alone):
        if getattr(best.augmentation, name) != getattr(none.augmentation, name):
            continue
        more = add(replace(best.augmentation, **{name: amount}))
        if more.gain and more.gain.exceeds(CLEAR):
            best = more
            comparison.choose(best.augmentation.describe(), best.measured)
    return best.augmentation


def _helpful(alone: dict[tuple[str, Any], Candidate]) -> list[tuple[str, Any]]:
    """Return the best amount of each augmentation that helped alone, the most helpful augmentation first."""
    best: dict[str, tuple[str, Any]] = {}
    for single, candidate in alone.items():
        name = single[0]
        if candidate.mean > 0 and (name not in best or candidate.mean > alone[best[name]].mean):
            best[name] = single
    return sorted(best.values(), key=lambda single: -alone[single].mean)
