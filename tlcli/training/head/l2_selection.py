"""Choosing L2 and temperature on images the head was not trained on.

Shapes: N images, D features, k classes, M images judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlcli.inference.calibration import calibrated_probabilities, fit_temperature
from tlcli.training.head.softmax_regression import SoftmaxHead, balanced_weights, fit_paths
from tlcli.training.head.standardization import Rows, read_blocks

L2S = tuple(10 ** (half_decades / 2) for half_decades in range(1, -9, -1))
"""3.2 to 1e-4, strong to weak. Best on clothing photographs: 3 with 5 or 10 a class, 1 with 30, 0.1 with 300."""
NEAR_TIE = 0.005
"""A weaker L2 must lower the loss by more than this share of it."""
PATIENCE = 2
"""The sweep ends after this many L2 in a row that were no better: the loss has one valley, and weak L2 are slow."""
FOLDS = 5

Progress = Callable[[int], None]
"""Called with how many more of the `L2S` are settled; they add up to all of them."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The head chosen, and what it was chosen by."""

    head: SoftmaxHead
    l2: float
    temperature: float
    method: str
    """"holdout" or "5-fold"."""
    sweep: list[dict[str, float]]
    """One entry for each L2 tried: l2; temperature, loss (at that temperature) and accuracy where judged."""
    log_prior: NDArray[np.float64] | None
    """[k], for `probabilities`, where classes were balanced; else None."""
    logits: NDArray[np.float32]
    """[M, k], not divided by the temperature: of the validation images (holdout), or of every image by the
    head that had not seen it (5-fold, M = N or `judged`)."""


def select_holdout(
    train_features: Tensor | Rows,
    train_labels: Tensor,
    validation_features: Tensor,
    validation_labels: Tensor,
    *,
    classes: int,
    balance: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Selection:
    """Fit on the training images, choose on the validation images.

    Args:
        train_features: float32 [N, D], N >= 1; in memory, or rows to be streamed.
        train_labels: int64 [N].
        validation_features: float32 [M, D], M >= 1.
        validation_labels: int64 [M].
        classes: Number of classes k.
        balance: Weigh training images by the inverse frequency of their class. Judging never weighs:
            `Selection.log_prior` keeps confidence true to the frequencies of the data.
        device: Where to compute: "cpu" or a CUDA device.
        progress: Told how much of the sweep is done.

    Raises:
        DataError: A training feature is not finite.
    """
    heads: list[SoftmaxHead] = []

    def validation_logits() -> Iterator[NDArray[np.float32]]:
        weights = balanced_weights(train_labels, classes) if balance else torch.ones(len(train_labels))
        for (head,) in fit_paths(train_features, train_labels, [weights], classes=classes, l2s=L2S, device=device):
            heads.append(head)
            yield head.logits(validation_features).numpy()

    everyone = np.ones(len(validation_labels), dtype=bool)
    log_prior = class_log_prior(train_labels, classes) if balance else None
    choice = _sweep(validation_logits(), validation_labels.numpy(), everyone, log_prior, progress)
    return choice.selection(heads[L2S.index(choice.l2)], "holdout")


def select_folds(
    features: Tensor | Rows,
    labels: Tensor,
    folds: NDArray[np.integer],
    *,
    classes: int,
    judged: int | None = None,
    balance: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Selection:
    """Choose by five-fold cross-validation, then fit on all images.

    A fold's head sees nothing of the images it judges, not even their mean. Its training rows are
    weighed back to the class frequencies of all rows; otherwise every class would be a little rarer
    where it is asked for. A class that a fold's training part lacks altogether cannot be judged there:
    its rows count in `logits`, but not in the choice.

    L2 passes to the larger fit as it is: the objective is a mean, and a fifth more rows would call for
    a change far smaller than the steps of the sweep.

    Args:
        features: float32 [N, D], N >= 1; in memory, or rows to be streamed.
        labels: int64 [N].
        folds: int [N], 0 to 4; a fold may be empty, or hold everything.
        classes: Number of classes k.
        judged: The first M rows are judged, the others (views of theirs) only learnt from; None judges all.
        balance: Weigh training images by the inverse frequency of their class. Judging never weighs:
            `Selection.log_prior` keeps confidence true to the frequencies of the data.
        device: Where to compute: "cpu" or a CUDA device.
        progress: Told how much of the sweep is done.

    Raises:
        DataError: A feature is not finite.
    """
    counts = torch.bincount(labels, minlength=classes)
    count = len(labels) if judged is None else judged
    held_out: list[Tensor] = []
    weightings: list[Tensor] = []
    seen = np.zeros(count, dtype=bool)
    for fold in range(FOLDS):
        out = torch.from_numpy(folds == fold)
        rest = labels[~out]
        if not out.any() or len(rest) == 0:
            continue
        rest_counts = torch.bincount(rest, minlength=classes)
        weights = balanced_weights(rest, classes) if balance else (counts / rest_counts)[rest]
        weightings.append(torch.zeros(len(labels)).masked_scatter_(~out, weights / weights.mean()))
        held_out.append(out[:count])
        seen |= (out & (rest_counts[labels] > 0)).numpy()[:count]

    def out_of_fold_logits() -> Iterator[NDArray[np.float32]]:
        if not weightings:  # nobody is held out from anybody
            yield from (np.zeros((count, classes), np.float32) for _ in L2S)
        for heads in fit_paths(features, labels, weightings, classes=classes, l2s=L2S, device=device):
            yield _out_of_fold(features, heads, held_out, count)

    which = seen if seen.any() else np.ones(count, dtype=bool)
    log_prior = class_log_prior(labels, classes) if balance else None
    choice = _sweep(out_of_fold_logits(), labels[:count].numpy(), which, log_prior, progress)
    all_weights = balanced_weights(labels, classes) if balance else torch.ones(len(labels))
    ((head,),) = fit_paths(features, labels, [all_weights], classes=classes, l2s=[choice.l2], device=device)
    return choice.selection(head, f"{FOLDS}-fold")


def _out_of_fold(
    features: Tensor | Rows, heads: Sequence[SoftmaxHead], held_out: Sequence[Tensor], count: int
) -> NDArray[np.float32]:
    """Logits [M, k] of the first `count` rows, each by the head that had not seen it; 0 where all had.

    Args:
        features: [N, D].
        heads: Of the folds.
        held_out: bool [M], the rows that each head had not seen.
        count: M.
    """
    logits = torch.zeros(count, len(heads[0].bias))
    blocks = [(slice(None), features[:count])] if isinstance(features, Tensor) else read_blocks(features)
    for at, block in blocks:
        for out, head in zip(held_out, heads, strict=True):
            mine = out[at]
            logits[at][mine] = head.logits(block[: len(mine)][mine])
    return logits.numpy()


@dataclass(frozen=True, kw_only=True)
class _Choice:
    l2: float
    temperature: float
    log_prior: NDArray[np.float64] | None
    logits: NDArray[np.float32]
    sweep: list[dict[str, float]]

    def selection(self, head: SoftmaxHead, method: str) -> Selection:
        return Selection(
            head=head,
            l2=self.l2,
            temperature=self.temperature,
            method=method,
            sweep=self.sweep,
            log_prior=self.log_prior,
            logits=self.logits,
        )


def _sweep(
    tries: Iterator[NDArray[np.float32]],
    labels: NDArray[np.integer],
    judged: NDArray[np.bool_],
    log_prior: NDArray[np.float64] | None,
    progress: Progress | None,
) -> _Choice:
    """Take the strongest L2 whose loss no weaker one clearly beats.

    The loss is that at its own best temperature: a temperature follows anyway, so an L2 earns nothing
    by happening to need none. (On the clothing photographs the plain loss picks 0.03, this one 0.1.)

    Args:
        tries: Logits [M, k] for each of `L2S`, made as they are asked for.
        labels: int [M].
        judged: bool [M], the rows that count.
        log_prior: float [k], where classes were balanced.
        progress: Told how much of the sweep is done.
    """
    choice: _Choice | None = None
    best, worse = float("inf"), 0
    sweep: list[dict[str, float]] = []
    truth = labels[judged]
    for l2, logits in zip(L2S, tries, strict=False):
        scores = logits[judged]
        temperature = fit_temperature(scores, truth, log_prior)
        likelihood = calibrated_probabilities(scores, temperature, log_prior)[np.arange(len(truth)), truth]
        loss = float(-np.log(np.maximum(likelihood, 1e-12)).mean())
        accuracy = float((scores.argmax(axis=1) == truth).mean())
        sweep.append({"l2": l2, "temperature": temperature, "loss": loss, "accuracy": accuracy})
        if progress:
            progress(1)
        if choice is None or loss < best * (1 - NEAR_TIE):
            choice = _Choice(l2=l2, temperature=temperature, log_prior=log_prior, logits=logits, sweep=sweep)
            best, worse = loss, 0
        else:
            worse += 1
        if worse == PATIENCE:
            break
    if progress:
        progress(len(L2S) - len(sweep))
    assert choice is not None  # L2S is not empty
    return choice


def class_log_prior(labels: Tensor, classes: int) -> NDArray[np.float64]:
    """Logarithms of the class frequencies, float [k]; a class without a row counts as half an image."""
    counts = np.bincount(labels.numpy(), minlength=classes).astype(np.float64)
    log_prior: NDArray[np.float64] = np.log(np.maximum(counts, 0.5) / len(labels))
    return log_prior
