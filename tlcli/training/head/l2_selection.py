"""Choose the penalty and the temperature of the head on images that it was not fitted on.

Shapes: N images, D features, k classes, M evaluated images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tlcli.progress import Advance
from tlcli.training.head.class_weights import UNWEIGHTED, ClassWeighting
from tlcli.training.head.folds import LabeledFeatures, fold_weightings, out_of_fold_logits
from tlcli.training.head.softmax_regression import WITHIN_WEIGHT, HeadFits, SoftmaxHead
from tlcli.training.head.sweep import Choice, Try, select_penalty
from tlcli.training.learning_curve import LearningCurve


@dataclass(frozen=True, kw_only=True)
class UnlabeledUse:
    """What unlabeled images were worth."""

    images: int
    """Number of unlabeled images."""
    used: int
    """How many of them the head was fitted on, before `--refit`; 0 if that did not lower the loss."""
    loss: float | None
    """Cross-entropy, on held-out images, of the heads that were fitted on unlabeled images as well. None if no held-out
    image has a class that its head knows."""
    loss_without: float | None
    """The same of the heads that were fitted on labels alone."""
    accuracy_without: float
    """Accuracy of the latter on all held-out images."""


@dataclass(frozen=True, kw_only=True)
class FittedHead:
    """The selected head, and how it was selected."""

    head: SoftmaxHead
    l2: float
    within_weight: float
    temperature: float
    method: str
    """"holdout", "leave-one-out", or the number of folds and of divisions into folds: "5-fold", "10 x 5-fold"."""
    sweep: list[dict[str, float]]
    """One entry for each L2 tried with that weight: l2, temperature, loss at that temperature, accuracy."""
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
    unlabeled: UnlabeledUse | None = None
    """What unlabeled images were worth; None if there are none."""
    fits: HeadFits | None = None
    """What the selection fitted, for `parts`; it holds copies of the features."""
    curve: LearningCurve | None = None
    """Its learning curve; None if it was not computed."""


class Penalty(TypedDict):
    """The penalty of a fit; see `HeadFits`."""

    l2: float
    within_weight: float


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

    weights = weighting.row_weights(train_labels, classes)
    fits = HeadFits(train_features, train_labels, [weights], classes=classes, device=device)

    def tries(l2s: Sequence[float], within_weight: float) -> Iterator[Try]:
        for heads in fits.path(l2s, within_weight):
            yield heads[0].logits(validation_features).numpy(), heads

    everyone = np.ones(len(validation_labels), dtype=bool)
    log_prior = weighting.log_prior(train_labels, classes)
    choice = select_penalty(tries, len(train_labels), validation_labels.numpy(), everyone, log_prior, progress)
    return replace(_fitted(choice, choice.heads[0], "holdout"), fits=fits)


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

    fits = HeadFits(features, labels, weightings, classes=classes, device=device) if weightings else None

    def tries(l2s: Sequence[float], within_weight: float) -> Iterator[Try]:
        if fits is None:  # nothing can be held out
            yield from ((np.zeros((count, classes), np.float32), []) for _ in l2s)
        else:
            for heads in fits.path(l2s, within_weight):
                yield out_of_fold_logits(features, heads, held_out, count), heads

    which = seen if seen.any() else np.ones(count, dtype=bool)
    log_prior = weighting.log_prior(labels, classes)
    choice = select_penalty(tries, len(labels), labels[:count].numpy(), which, log_prior, progress)
    penalty: Penalty = {"l2": choice.l2, "within_weight": choice.within_weight}
    head = fit_once(train, **penalty, classes=classes, weighting=weighting, device=device)
    return replace(_fitted(choice, head, f"{len(np.unique(folds))}-fold"), fold_heads=choice.heads, fits=fits)


def fit_once(
    train: LabeledFeatures,
    *,
    l2: float,
    within_weight: float = WITHIN_WEIGHT,
    classes: int,
    weighting: ClassWeighting = UNWEIGHTED,
    device: str = "cpu",
) -> SoftmaxHead:
    """Fit a head with one penalty on all rows; the other arguments are those of `select_folds`."""
    features, labels = train
    weights = weighting.row_weights(labels, classes)
    fits = HeadFits(features, labels, [weights], classes=classes, device=device)
    ((head,),) = fits.path([l2], within_weight)
    return head


def out_of_fold_accuracy(
    train: LabeledFeatures,
    folds: NDArray[np.integer],
    *,
    penalty: Penalty,
    classes: int,
    evaluated: int,
    weighting: ClassWeighting = UNWEIGHTED,
    device: str = "cpu",
) -> float:
    """Return the share of images that are predicted correctly by the heads of their folds, all fitted with one penalty.

    The arguments are those of `select_folds`; there must be two folds or more.
    """
    features, labels = train
    held_out, weightings, _ = fold_weightings(labels, folds, classes=classes, weighting=weighting)
    fits = HeadFits(features, labels, weightings, classes=classes, device=device)
    (heads,) = fits.path([penalty["l2"]], penalty["within_weight"])
    logits = out_of_fold_logits(features, heads, [out[:evaluated] for out in held_out], evaluated)
    return float((logits.argmax(axis=1) == labels[:evaluated].numpy()).mean())


def _fitted(choice: Choice, head: SoftmaxHead, method: str) -> FittedHead:
    return FittedHead(
        head=head,
        l2=choice.l2,
        within_weight=choice.within_weight,
        temperature=choice.temperature,
        method=method,
        sweep=choice.sweep,
        log_prior=choice.log_prior,
        logits=choice.logits,
    )
