"""Choose the L2 and the temperature of the head on images that it was not fitted on.

Shapes: N images, D features, k classes, M evaluated images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tlcli.inference.calibration import calibrated_probabilities, fit_temperature
from tlcli.progress import Advance
from tlcli.training.head.class_weights import UNWEIGHTED, ClassWeighting
from tlcli.training.head.folds import LabeledFeatures, fold_weightings, out_of_fold_logits
from tlcli.training.head.softmax_regression import SoftmaxHead, fit_paths

L2S = tuple(10 ** (half_decades / 2) for half_decades in range(3, -9, -1))
"""32 to 1e-4, strong to weak."""
NEAR_TIE = 0.005
"""A weaker L2 must lower the loss by more than this fraction."""
L2_PATIENCE = 2
"""The sweep ends after this many L2 in a row without improvement: the loss has one minimum, and weak L2 are slow."""


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
    """[k], for `probabilities`, if classes were weighted; else None."""
    fold_heads: Sequence[SoftmaxHead] = ()
    """The heads of the folds with that L2, in the order of the folds; none with "holdout"."""
    logits: NDArray[np.float32]
    """[M, k], not divided by the temperature: of the validation images (holdout), or of every image by the head of
    the fold that held it out (M = N or `evaluated`), averaged over the divisions into folds."""
    test_logits: NDArray[np.float32] | None = None
    """The same for test images; None if there are none."""
    single_image_accuracy: float | None = None
    """Accuracy in folds that divide groups of similar images; None if there are no groups or no folds."""


class HeadOptions(TypedDict):
    """How heads are fitted; see `select_folds`."""

    classes: int
    weighting: ClassWeighting
    device: str


def select_holdout(
    train: LabeledFeatures,
    validation: tuple[Tensor, Tensor],
    *,
    classes: int,
    weighting: ClassWeighting = UNWEIGHTED,
    device: str = "cpu",
    progress: Advance | None = None,
) -> FittedHead:
    """Fit on the training images, and select on the validation images.

    Args:
        train: Features and labels to fit on, N >= 1.
        validation: Features float32 [M, D] and labels int64 [M] to select on, M >= 1.
        classes: Number of classes k.
        weighting: The weights of the classes. Evaluation is never weighted: `FittedHead.log_prior` keeps confidences
            true to the class frequencies of the data.
        device: `cpu` or a CUDA device.
        progress: Called with the number of `L2S` that are done; the numbers add up to all of them.

    Raises:
        DataError: a training feature is NaN or infinite.
    """
    train_features, train_labels = train
    validation_features, validation_labels = validation

    def tries() -> Iterator[_Try]:
        weights = weighting.row_weights(train_labels, classes)
        for heads in fit_paths(train_features, train_labels, [weights], classes=classes, l2s=L2S, device=device):
            yield heads[0].logits(validation_features).numpy(), heads

    everyone = np.ones(len(validation_labels), dtype=bool)
    log_prior = weighting.log_prior(train_labels, classes)
    choice = _sweep(tries(), validation_labels.numpy(), everyone, log_prior, progress)
    return choice.fitted(choice.heads[0], "holdout")


def select_folds(
    train: LabeledFeatures,
    folds: NDArray[np.integer],
    *,
    classes: int,
    evaluated: int | None = None,
    weighting: ClassWeighting = UNWEIGHTED,
    device: str = "cpu",
    progress: Advance | None = None,
) -> FittedHead:
    """Select by cross-validation, then fit on all images.

    A fold's head has no information about the images it is evaluated on, not even their mean. Its training rows are
    weighted back to the class frequencies of all rows; otherwise a class would be rarer where it is evaluated. A class
    without rows in a fold's training part cannot be evaluated there: its rows count in `logits`, but not in the
    selection.

    If the images are divided into folds several times, the logits of an image are averaged over the heads that were
    fitted without it. With few images, this makes up for the images that each of these heads lacks.

    The final fit takes the selected L2 unchanged: the objective is a mean, and at most a fifth more rows would require
    a change far smaller than the steps of the sweep.

    Args:
        train: Features and labels, N >= 1.
        folds: int [N], or [R, N] for R divisions into folds. A fold may hold everything; -1 is never held out.
        classes: Number of classes k.
        evaluated: Number M of rows, the first ones, to evaluate; the others (their views) are only fitted on. None
            evaluates all.
        weighting: The weights of the classes. Evaluation is never weighted: `FittedHead.log_prior` keeps confidences
            true to the class frequencies of the data.
        device: `cpu` or a CUDA device.
        progress: Called with the number of `L2S` that are done; the numbers add up to all of them.

    Raises:
        DataError: a feature is NaN or infinite.
    """
    features, labels = train
    count = len(labels) if evaluated is None else evaluated
    held_out, weightings, seen = fold_weightings(labels, folds, classes=classes, weighting=weighting)
    held_out, seen = [out[:count] for out in held_out], seen[:count]

    def tries() -> Iterator[_Try]:
        if not weightings:  # nothing can be held out
            yield from ((np.zeros((count, classes), np.float32), []) for _ in L2S)
        for heads in fit_paths(features, labels, weightings, classes=classes, l2s=L2S, device=device):
            yield out_of_fold_logits(features, heads, held_out, count), heads

    which = seen if seen.any() else np.ones(count, dtype=bool)
    log_prior = weighting.log_prior(labels, classes)
    choice = _sweep(tries(), labels[:count].numpy(), which, log_prior, progress)
    head = fit_once(train, l2=choice.l2, classes=classes, weighting=weighting, device=device)
    return replace(choice.fitted(head, f"{len(np.unique(folds))}-fold"), fold_heads=choice.heads)


def fit_once(
    train: LabeledFeatures, *, l2: float, classes: int, weighting: ClassWeighting = UNWEIGHTED, device: str = "cpu"
) -> SoftmaxHead:
    """Fit a head with one L2 on all rows; the arguments are those of `select_folds`."""
    features, labels = train
    weights = weighting.row_weights(labels, classes)
    ((head,),) = fit_paths(features, labels, [weights], classes=classes, l2s=[l2], device=device)
    return head


def out_of_fold_accuracy(
    train: LabeledFeatures,
    folds: NDArray[np.integer],
    *,
    l2: float,
    classes: int,
    evaluated: int,
    weighting: ClassWeighting = UNWEIGHTED,
    device: str = "cpu",
) -> float:
    """Return the share of images that are predicted correctly by the heads of their folds, all fitted with one L2.

    The arguments are those of `select_folds`; there must be two folds or more.
    """
    features, labels = train
    held_out, weightings, _ = fold_weightings(labels, folds, classes=classes, weighting=weighting)
    (heads,) = fit_paths(features, labels, weightings, classes=classes, l2s=[l2], device=device)
    logits = out_of_fold_logits(features, heads, [out[:evaluated] for out in held_out], evaluated)
    return float((logits.argmax(axis=1) == labels[:evaluated].numpy()).mean())


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """The best L2 of a sweep so far."""

    l2: float
    temperature: float
    log_prior: NDArray[np.float64] | None
    logits: NDArray[np.float32]
    heads: list[SoftmaxHead]
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


_Try = tuple[NDArray[np.float32], list[SoftmaxHead]]
"""Logits [M, k] with one L2, and the heads that gave them."""


def _sweep(
    tries: Iterator[_Try],
    labels: NDArray[np.integer],
    counted: NDArray[np.bool_],
    log_prior: NDArray[np.float64] | None,
    progress: Advance | None,
) -> _Choice:
    """Select the strongest L2 whose loss no weaker one clearly beats.

    Losses are compared at the best temperature of each L2: a temperature is fitted anyway, so an L2 that happens to
    need none has no advantage. (On the clothing photographs the plain loss selects 0.03, this one 0.1.)

    Args:
        tries: One for each of `L2S`, computed lazily.
        labels: int [M], class indices.
        counted: bool [M], the rows that count in the selection.
        log_prior: float [k] if classes were weighted.
        progress: Called as in `select_folds`.
    """
    choice: _Choice | None = None
    best, worse = float("inf"), 0
    sweep: list[dict[str, float]] = []
    truth = labels[counted]
    for l2, (logits, heads) in zip(L2S, tries, strict=False):
        scores = logits[counted]
        temperature = fit_temperature(scores, truth, log_prior)
        likelihood = calibrated_probabilities(scores, temperature, log_prior)[np.arange(len(truth)), truth]
        loss = float(-np.log(np.maximum(likelihood, 1e-12)).mean())
        accuracy = float((scores.argmax(axis=1) == truth).mean())
        sweep.append({"l2": l2, "temperature": temperature, "loss": loss, "accuracy": accuracy})
        if progress:
            progress(1)
        if choice is None or loss < best * (1 - NEAR_TIE):
            choice = _Choice(
                l2=l2, temperature=temperature, log_prior=log_prior, logits=logits, heads=heads, sweep=sweep
            )
            best, worse = loss, 0
        else:
            worse += 1
        if worse == L2_PATIENCE:
            break
    if progress:
        progress(len(L2S) - len(sweep))
    assert choice is not None  # L2S is not empty
    return choice
