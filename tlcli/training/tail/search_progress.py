"""The progress and the result of the search for a depth: the depths tried, and which of them is the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tlcli.features.extractor import FeatureExtractor
from tlcli.training.paired_gain import paired_gain
from tlcli.training.tail.depths import DEPTH_PATIENCE
from tlcli.training.tail.fit import FittedTail
from tlcli.training.tail.start import Weights
from tlcli.training.tail.validation import ValidationResult

OnLines = Callable[[Sequence[dict[str, Any]]], None]
"""Called with all lines of `metrics.jsonl` so far."""


@dataclass(kw_only=True)
class SearchProgress:
    """Progress of the search. Every checkpoint contains it, as JSON."""

    depth: int = 0
    """Index of the current candidate."""
    division: int = 0
    """Index of the division of the images that the current candidate is trained on: its fold, if there are folds."""
    epochs: int = 0
    """Epochs of the current candidate; 0 if that is not decided yet."""
    seconds: float = 0.0
    """Duration of the current candidate's training on the divisions that are done."""
    spent: float = 0.0
    """Budget used so far, in epochs of the whole network."""
    tried: list[dict[str, Any]] = field(default_factory=list)
    """One row for each finished depth: freeze, layer, name, best_epoch, parameters, share, epochs, accuracy, error,
    loss, gain, gain_error, accuracy_gain, accuracy_gain_error, seconds, augmentation, views. `gain` is by how much the
    loss is lower than that of the last depth with a significant gain; `accuracy_gain` is that of the accuracy over the
    first depth, usually the head alone. Both are paired, with their standard errors, and None for the first depth."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """One for each epoch of the finished depths."""
    best: int = -1
    """Index in `tried` of the depth to keep."""
    best_losses: list[float] = field(default_factory=list)
    """[M], on the validation images, of that depth."""
    best_errors: list[float] = field(default_factory=list)
    """[M], 1 for each image that it predicts incorrectly, else 0."""
    first_errors: list[float] = field(default_factory=list)
    """[M], the same of the first depth."""
    losses: list[float] = field(default_factory=list)
    """[M], of the last depth with a significant gain."""
    stopped: str | None = None
    """Where the loss became NaN or infinite, which ends the search after that depth; None if it never did."""
    repeated: int | None = None
    """Depths that were trained on all images in the end; None while the search goes on."""
    without_gain: int = 0
    """Depths in a row without a significant gain."""

    @property
    def searching(self) -> bool:
        """Whether another depth is worth a try."""
        return self.repeated is None and self.without_gain < DEPTH_PATIENCE

    def add(self, row: dict[str, Any], result: ValidationResult) -> bool:
        """Add a depth to the table.

        A deeper one is kept only if it is better beyond chance, so that ties go to the smaller change: if the loss is
        lower by one standard error of the paired difference and, if the head alone was best, the accuracy is higher by
        one as well.

        Args:
            row: What was trained, without validation figures.
            result: Logits, losses, and accuracy on the validation images.

        Returns:
            Whether it is the depth to keep so far.
        """
        gain = paired_gain(np.array(self.losses), result.losses) if self.tried else None
        errors = (~result.correct).astype(np.float64)
        accuracy, loss = result.accuracy, result.loss
        error = float(np.sqrt(accuracy * (1 - accuracy) / len(errors)))
        gained = {"gain": gain and gain.mean, "gain_error": gain and gain.error}
        gained |= self._accuracy_gain(errors)
        is_best = not self.tried or self._is_better(result)
        if is_best:
            self.best, self.best_losses, self.best_errors = len(self.tried), result.losses.tolist(), errors.tolist()
        self.tried.append(row | {"accuracy": accuracy, "error": error, "loss": loss} | gained)
        if gain is None or gain.significant:
            self.losses, self.without_gain = result.losses.tolist(), 0
        else:
            self.without_gain += 1
        return is_best

    def _accuracy_gain(self, errors: npt.NDArray[np.float64]) -> dict[str, float | None]:
        """Compare with the first depth on the same images; `errors` [M] are 1 for incorrect predictions, else 0."""
        if not self.tried:
            self.first_errors = errors.tolist()
        if not self.tried or not self.first_errors:  # none in the checkpoint of an older version
            return {"accuracy_gain": None, "accuracy_gain_error": None}
        gain = paired_gain(np.array(self.first_errors), errors)
        return {"accuracy_gain": gain.mean, "accuracy_gain_error": gain.error}

    def _is_better(self, result: ValidationResult) -> bool:
        if not paired_gain(np.array(self.best_losses), result.losses).significant:
            return False
        errors = paired_gain(np.array(self.best_errors), (~result.correct).astype(np.float64))
        return errors.significant or self.tried[self.best]["epochs"] > 0


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The best depth; its weights are in the network."""

    extractor: FeatureExtractor
    """The network, cut at the best depth."""
    validation: ValidationResult
    lines: list[dict[str, Any]]
    """One for each epoch of all depths."""
    training: dict[str, Any]
    """Depths tried, the best one, where training stopped, and the recipe, for `run.json`."""
    log_prior: npt.NDArray[np.float64] | None
    """[k] if classes were weighted."""
    stopped: str | None
    """Where the loss became NaN or infinite; None if it never did."""
    evaluated: list[Weights]
    """The weights that `validation` evaluated, one for each division of the images; empty if the network has them."""
    feature_seconds: float
    seconds: float


def tried_row(
    freeze: str, extractor: FeatureExtractor, fitted: FittedTail | None, views: int | None, seconds: float
) -> dict[str, Any]:
    """Return what was trained at a depth, for `SearchProgress.tried`.

    Args:
        freeze: Value of `--freeze`.
        extractor: The network, cut at that depth.
        fitted: Its trained tail, of the last fold if there are several; None for the exact head.
        views: Number of cached augmented views of each image.
        seconds: Duration of the training, in all folds.
    """
    cut, augmentation = extractor.cut, extractor.augmentation
    return {
        "freeze": freeze,
        "layer": cut.layer,
        "name": cut.name,
        "parameters": fitted.parameters if fitted else sum(parameter.numel() for parameter in cut.tail.parameters()),
        "share": round(fitted.share, 4) if fitted else 0.0,
        "epochs": len(fitted.lines) if fitted else 0,
        "best_epoch": fitted.best_epoch if fitted else 0,
        "seconds": round(seconds, 1),
        "augmentation": augmentation.to_json() if augmentation else None,
        "views": views,
    }


def lines_at(layer: int, fold: int | None, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return lines of `metrics.jsonl`, with None for values that JSON cannot express, and without folds."""
    return [
        {"layer": layer, "fold": fold}
        | {name: value if value is not None and np.isfinite(value) else None for name, value in line.items()}
        for line in lines
    ]
