"""Sweep the penalties of the head, and select the one that is best on images that it was not fitted on.

Shapes: N images, k classes, M evaluated images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcli.datasets.splits import FEW_IMAGES
from tlcli.inference.calibration import calibrated_probabilities, fit_temperature
from tlcli.progress import Advance
from tlcli.training.head.softmax_regression import WITHIN_WEIGHT, SoftmaxHead

L2S = tuple(10 ** (half_decades / 2) for half_decades in range(3, -9, -1))
"""32 to 1e-4, strong to weak."""
NEAR_TIE = 0.005
"""A weaker L2 must lower the loss by more than this fraction."""
FEW_IMAGES_WITHIN_WEIGHT = 0.4
"""Weight of the covariance within classes that is tried besides `WITHIN_WEIGHT`, with at most `FEW_IMAGES` rows: it is
better on signs, digits, and letters, `WITHIN_WEIGHT` on photographs and textures."""
L2_PATIENCE = 2
"""The sweep ends after this many L2 in a row without improvement: the loss has one minimum, and weak L2 are slow."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The best L2 of a sweep so far, and the whole sweep."""

    l2: float
    within_weight: float
    loss: float
    temperature: float
    log_prior: NDArray[np.float64] | None
    logits: NDArray[np.float32]
    heads: list[SoftmaxHead]
    sweep: list[dict[str, float]]


Try = tuple[NDArray[np.float32], list[SoftmaxHead]]
"""Logits [M, k] with one L2, and the heads that gave them."""
Tries = Callable[[Sequence[float], float], Iterator[Try]]
"""Tries L2s, lazily, with a weight of the covariance within classes."""


def select_penalty(
    tries: Tries,
    rows: int,
    labels: NDArray[np.integer],
    counted: NDArray[np.bool_],
    log_prior: NDArray[np.float64] | None,
    progress: Advance | None,
) -> Choice:
    """Select the L2, and with at most `FEW_IMAGES` rows, the weight of the covariance within classes.

    Args:
        tries: Fits and evaluates heads.
        rows: Number of rows that heads are fitted on, with views.
        labels: int [M], class indices.
        counted: bool [M], the rows that count in the selection, one or more.
        log_prior: float64 [k] if classes were weighted.
        progress: Called with the number of `L2S` that are done; the numbers add up to all of them.
    """
    choice = _sweep(tries, WITHIN_WEIGHT, labels, counted, log_prior, progress)
    if rows > FEW_IMAGES:
        return choice
    other = _sweep(tries, FEW_IMAGES_WITHIN_WEIGHT, labels, counted, log_prior, None)
    return other if other.loss < choice.loss * (1 - NEAR_TIE) else choice


def _sweep(
    tries: Tries,
    within_weight: float,
    labels: NDArray[np.integer],
    counted: NDArray[np.bool_],
    log_prior: NDArray[np.float64] | None,
    progress: Advance | None,
) -> Choice:
    """Select the strongest L2 whose loss no weaker one clearly beats.

    Losses are compared at the best temperature of each L2: a temperature is fitted anyway, so an L2 that happens to
    need none has no advantage. (On the clothing photographs the plain loss selects 0.03, this one 0.1.) The arguments
    are those of `select_penalty`.
    """
    choice: Choice | None = None
    worse = 0
    sweep: list[dict[str, float]] = []
    truth = labels[counted]
    for l2, (logits, heads) in zip(L2S, tries(L2S, within_weight), strict=False):
        scores = logits[counted]
        temperature, losses = held_out_losses(scores, truth, log_prior)
        loss = float(losses.mean())
        accuracy = float((scores.argmax(axis=1) == truth).mean())
        sweep.append(
            {"l2": l2, "within_weight": within_weight, "temperature": temperature, "loss": loss, "accuracy": accuracy}
        )
        if progress:
            progress(1)
        if choice is None or loss < choice.loss * (1 - NEAR_TIE):
            choice = Choice(
                l2=l2,
                within_weight=within_weight,
                loss=loss,
                temperature=temperature,
                log_prior=log_prior,
                logits=logits,
                heads=heads,
                sweep=sweep,
            )
            worse = 0
        else:
            worse += 1
        if worse == L2_PATIENCE:
            break
    if progress:
        progress(len(L2S) - len(sweep))
    assert choice is not None  # L2S is not empty
    return choice


def held_out_losses(
    logits: NDArray[np.float32], labels: NDArray[np.integer], log_prior: NDArray[np.float64] | None
) -> tuple[float, NDArray[np.float64]]:
    """Return the best temperature for logits [N, k] of held-out images, and the cross-entropy of each at it, [N]."""
    temperature = fit_temperature(logits, labels, log_prior)
    likelihood = calibrated_probabilities(logits, temperature, log_prior)[np.arange(len(labels)), labels]
    return temperature, -np.log(np.maximum(likelihood.astype(np.float64), 1e-12))
