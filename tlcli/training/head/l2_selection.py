"""Choose the L2 and the temperature of the head on images that it was not fitted on.

Shapes: N images, D features, k classes, M evaluated images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlcli.inference.calibration import calibrated_probabilities, fit_temperature
from tlcli.progress import Advance
from tlcli.training.head.softmax_regression import SoftmaxHead, balanced_weights, fit_paths
from tlcli.training.head.standardization import Rows, read_blocks

L2S = tuple(10 ** (half_decades / 2) for half_decades in range(3, -9, -1))
"""32 to 1e-4, strong to weak."""
NEAR_TIE = 0.005
"""A weaker L2 must lower the loss by more than this fraction."""
L2_PATIENCE = 2
"""The sweep ends after this many L2 in a row without improvement: the loss has one minimum, and weak L2 are slow."""

LabeledFeatures = tuple[Tensor | Rows, Tensor]
"""Features float32 [N, D], in memory or streamed row by row, and labels int64 [N]."""


@dataclass(frozen=True, kw_only=True)
class FittedHead:
    """The selected head, and how it was selected."""

    head: SoftmaxHead
    l2: float
    temperature: float
    method: str
    """"holdout", "leave-one-out", or the number of folds and of divisions into folds: "5-fold", "10 x 5-fold"."""
    sweep: list[dict[str, float]]
    """One entry for each L2 tried: l2, temperature, loss at that temperature, accuracy."""
    log_prior: NDArray[np.float64] | None
    """[k], for `probabilities`, if classes were balanced; else None."""
    logits: NDArray[np.float32]
    """[M, k], not divided by the temperature: of the validation images (holdout), or of every image by the head of
    the fold that held it out (M = N or `evaluated`), averaged over the divisions into folds."""
    test_logits: NDArray[np.float32] | None = None
    """The same for test images; None if there are none."""
    single_image_accuracy: float | None = None
    """Accuracy in folds that divide groups of similar images; None if there are no groups or no folds."""


class FoldOptions(TypedDict):
    """How the heads of folds are fitted and evaluated; see `select_folds`."""

    classes: int
    evaluated: int
    balance: bool
    device: str


def select_holdout(
    train: LabeledFeatures,
    validation: tuple[Tensor, Tensor],
    *,
    classes: int,
    balance: bool = False,
    device: str = "cpu",
    progress: Advance | None = None,
) -> FittedHead:
    """Fit on the training images, and select on the validation images.

    Args:
        train: Features and labels to fit on, N >= 1.
        validation: Features float32 [M, D] and labels int64 [M] to select on, M >= 1.
        classes: Number of classes k.
        balance: Weight training images by the inverse frequency of their class. Evaluation is never weighted:
            `FittedHead.log_prior` keeps confidences true to the class frequencies of the data.
        device: `cpu` or a CUDA device.
        progress: Called with the number of `L2S` that are done; the numbers add up to all of them.

    Raises:
        DataError: a training feature is NaN or infinite.
    """
    train_features, train_labels = train
    validation_features, validation_labels = validation
    heads: list[SoftmaxHead] = []

    def validation_logits() -> Iterator[NDArray[np.float32]]:
        weights = balanced_weights(train_labels, classes) if balance else torch.ones(len(train_labels))
        for (head,) in fit_paths(train_features, train_labels, [weights], classes=classes, l2s=L2S, device=device):
            heads.append(head)
            yield head.logits(validation_features).numpy()

    everyone = np.ones(len(validation_labels), dtype=bool)
    log_prior = class_log_prior(train_labels, classes) if balance else None
    choice = _sweep(validation_logits(), validation_labels.numpy(), everyone, log_prior, progress)
    return choice.fitted(heads[L2S.index(choice.l2)], "holdout")


def select_folds(
    train: LabeledFeatures,
    folds: NDArray[np.integer],
    *,
    classes: int,
    evaluated: int | None = None,
    balance: bool = False,
    device: str = "cpu",
    progress: Advance | None = None,
) -> FittedHead:
    """Select by cross-validation, then fit on all images.

    A fold's head has no information about the images it is evaluated on, not even their mean. Its training rows are
    weighted back to the class frequencies of all rows; otherwise each class would be slightly rarer in the folds where
    it is evaluated. A class without rows in a fold's training part cannot be evaluated there: its rows count in
    `logits`, but not in the selection.

    If the images are divided into folds several times, the logits of an image are averaged over the heads that were
    fitted without it. With few images, this makes up for the images that each of these heads lacks.

    The final fit takes the selected L2 unchanged: the objective is a mean, and at most a fifth more rows would require
    a change far smaller than the steps of the sweep.

    Args:
        train: Features and labels, N >= 1.
        folds: int [N], or [R, N] for R divisions into folds; a fold may hold everything.
        classes: Number of classes k.
        evaluated: Number M of rows, the first ones, to evaluate; the others (their views) are only fitted on. None
            evaluates all.
        balance: Weight training images by the inverse frequency of their class. Evaluation is never weighted:
            `FittedHead.log_prior` keeps confidences true to the class frequencies of the data.
        device: `cpu` or a CUDA device.
        progress: Called with the number of `L2S` that are done; the numbers add up to all of them.

    Raises:
        DataError: a feature is NaN or infinite.
    """
    features, labels = train
    count = len(labels) if evaluated is None else evaluated
    held_out, weightings, seen = _fold_weightings(labels, folds, classes=classes, balance=balance)
    held_out, seen = [out[:count] for out in held_out], seen[:count]

    def out_of_fold_logits() -> Iterator[NDArray[np.float32]]:
        if not weightings:  # nothing can be held out
            yield from (np.zeros((count, classes), np.float32) for _ in L2S)
        for heads in fit_paths(features, labels, weightings, classes=classes, l2s=L2S, device=device):
            yield _out_of_fold(features, heads, held_out, count)

    which = seen if seen.any() else np.ones(count, dtype=bool)
    log_prior = class_log_prior(labels, classes) if balance else None
    choice = _sweep(out_of_fold_logits(), labels[:count].numpy(), which, log_prior, progress)
    all_weights = balanced_weights(labels, classes) if balance else torch.ones(len(labels))
    ((head,),) = fit_paths(features, labels, [all_weights], classes=classes, l2s=[choice.l2], device=device)
    return choice.fitted(head, f"{len(np.unique(folds))}-fold")


def out_of_fold_accuracy(
    train: LabeledFeatures,
    folds: NDArray[np.integer],
    *,
    l2: float,
    classes: int,
    evaluated: int,
    balance: bool = False,
    device: str = "cpu",
) -> float:
    """Return the share of images that are predicted correctly by the heads of their folds, all fitted with one L2.

    The arguments are those of `select_folds`; there must be two folds or more.
    """
    features, labels = train
    held_out, weightings, _ = _fold_weightings(labels, folds, classes=classes, balance=balance)
    (heads,) = fit_paths(features, labels, weightings, classes=classes, l2s=[l2], device=device)
    logits = _out_of_fold(features, heads, [out[:evaluated] for out in held_out], evaluated)
    return float((logits.argmax(axis=1) == labels[:evaluated].numpy()).mean())


def _fold_weightings(
    labels: Tensor, folds: NDArray[np.integer], *, classes: int, balance: bool
) -> tuple[list[Tensor], list[Tensor], NDArray[np.bool_]]:
    """Weight the rows for the fit of each fold; the arguments are those of `select_folds`.

    Returns:
        For each fold that leaves other rows, the rows that it holds out, bool [N]; for each, the weights of the rows in
        its fit, float32 [N], 0 for held-out rows; and the rows, bool [N], whose class all heads without them know.
    """
    counts = torch.bincount(labels, minlength=classes)
    held_out: list[Tensor] = []
    weightings: list[Tensor] = []
    seen, unknown = np.zeros((2, len(labels)), dtype=bool)
    for out in (
        torch.from_numpy(division == fold) for division in np.atleast_2d(folds) for fold in np.unique(division)
    ):
        rest = labels[~out]
        if len(rest) == 0:
            continue
        rest_counts = torch.bincount(rest, minlength=classes)
        weights = balanced_weights(rest, classes) if balance else (counts / rest_counts)[rest]
        weightings.append(torch.zeros(len(labels)).masked_scatter_(~out, weights / weights.mean()))
        held_out.append(out)
        seen |= out.numpy()
        unknown |= (out & (rest_counts[labels] == 0)).numpy()
    return held_out, weightings, seen & ~unknown


def _out_of_fold(
    features: Tensor | Rows, heads: Sequence[SoftmaxHead], held_out: Sequence[Tensor], count: int
) -> NDArray[np.float32]:
    """Return the mean logits [M, k] of the first M rows by the heads of the folds that held them out; 0 if none did.

    Args:
        features: float32 [N, D].
        heads: The heads of the folds.
        held_out: bool [M] for each head, its held-out rows.
        count: Number M of rows, the first ones, to compute logits of.
    """
    logits = torch.zeros(count, len(heads[0].bias))
    blocks = [(slice(None), features[:count])] if isinstance(features, Tensor) else read_blocks(features)
    for at, block in blocks:
        for out, head in zip(held_out, heads, strict=True):
            mine = out[at]
            logits[at][mine] += head.logits(block[: len(mine)][mine])
    return logits.div_(torch.stack(list(held_out)).sum(dim=0).clamp_min(1)[:, None]).numpy()


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """The best L2 of a sweep so far."""

    l2: float
    temperature: float
    log_prior: NDArray[np.float64] | None
    logits: NDArray[np.float32]
    sweep: list[dict[str, float]]

    def fitted(self, head: SoftmaxHead, method: str) -> FittedHead:
        return FittedHead(
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
    counted: NDArray[np.bool_],
    log_prior: NDArray[np.float64] | None,
    progress: Advance | None,
) -> _Choice:
    """Select the strongest L2 whose loss no weaker one clearly beats.

    Losses are compared at the best temperature of each L2: a temperature is fitted anyway, so an L2 that happens to
    need none has no advantage. (On the clothing photographs the plain loss selects 0.03, this one 0.1.)

    Args:
        tries: Logits [M, k] for each of `L2S`, computed lazily.
        labels: int [M], class indices.
        counted: bool [M], the rows that count in the selection.
        log_prior: float [k] if classes were balanced.
        progress: Called as in `select_folds`.
    """
    choice: _Choice | None = None
    best, worse = float("inf"), 0
    sweep: list[dict[str, float]] = []
    truth = labels[counted]
    for l2, logits in zip(L2S, tries, strict=False):
        scores = logits[counted]
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
        if worse == L2_PATIENCE:
            break
    if progress:
        progress(len(L2S) - len(sweep))
    assert choice is not None  # L2S is not empty
    return choice


def class_log_prior(labels: Tensor, classes: int) -> NDArray[np.float64]:
    """Return the logarithms of the class frequencies: float [k]. A class without rows counts as half an image."""
    counts = np.bincount(labels.numpy(), minlength=classes).astype(np.float64)
    log_prior: NDArray[np.float64] = np.log(np.maximum(counts, 0.5) / len(labels))
    return log_prior
