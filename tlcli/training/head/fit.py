"""Fit the softmax head on the features before it: all of the training with `--freeze all`, else a tail's start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlcli import processes
from tlcli.datasets.splits import assign_folds, fold_method
from tlcli.errors import DataError
from tlcli.features.extractor import FeatureExtractor
from tlcli.features.stored_rows import IN_MEMORY, StoredRows
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.head.folds import LabeledFeatures
from tlcli.training.head.l2_selection import (
    FittedHead,
    HeadOptions,
    Penalty,
    fit_once,
    out_of_fold_accuracy,
    select_folds,
    select_holdout,
)
from tlcli.training.head.parts import fold_part_errors, holdout_part_errors, order_in_class
from tlcli.training.head.semi_supervised import SemiSupervisedFit
from tlcli.training.head.sweep import L2S
from tlcli.training.learning_curve import FEWEST_PER_CLASS, LearningCurve, learning_curve, no_curve
from tlcli.training.usable_images import UsableImages, require_unchanged


def cache_views(extractor: FeatureExtractor, images: UsableImages, views: int) -> float:
    """Compute the features of `views` augmented views of the training images, and return the seconds it took.

    Raises:
        DataError: training images changed since the run began.
    """
    train = images.rows("train")
    extraction = extractor.extract_views(images.paths(train), images.digests(train), range(1, views + 1))
    require_unchanged(extraction, images.digests(train))
    return extraction.seconds


def fit_head(
    extractor: FeatureExtractor,
    images: UsableImages,
    *,
    views: int = 0,
    weighting: ClassWeighting,
    seed: int,
    folds: Sequence[int] | None = None,
    test: Sequence[int] = (),
) -> FittedHead:
    """Fit the head on train and `views` cached views of it, and put it into the network.

    L2 and temperature are chosen on plain images that were held out. Under torchrun, only the first process fits.

    Args:
        extractor: A network cut before its head, whose features are all stored.
        images: The images to fit and select on.
        views: Number of cached augmented views of each training image.
        weighting: The weights of the classes.
        seed: Seed for assigning images to folds.
        folds: Fold of each training image, -1 if it is never held out; None assigns folds, or selects on validation
            images if there are some.
        test: Rows of the images whose logits to return as `test_logits`.

    Raises:
        DataError: all images are in one group, so none can be held out, or a feature is NaN or infinite.
    """

    def fit_and_test() -> FittedHead:
        fitted = _fit(extractor, images, views=views, weighting=weighting, seed=seed, folds=folds)
        return _with_test_logits(fitted, extractor, images, test)

    return _set(processes.from_first(fit_and_test), extractor)


def refit_head(
    extractor: FeatureExtractor,
    images: UsableImages,
    fitted: FittedHead,
    *,
    views: int,
    weighting: ClassWeighting,
    test: Sequence[int] = (),
) -> FittedHead:
    """Fit the head with the penalty of `fitted` on the images of train and their views, and put it into the network.

    The other arguments are those of `fit_head`.
    """

    def fit_and_test() -> FittedHead:
        how: HeadOptions = {"classes": images.classes, "weighting": weighting, "device": extractor.network.head_device}
        rows = _train_rows(extractor, images, views)
        if fitted.unlabeled and fitted.unlabeled.used:
            head = _semi_supervised(rows, fitted, extractor, images, how).fit()
        else:
            head = fit_once(rows, **_penalty(fitted), **how)
        return _with_test_logits(replace(fitted, head=head), extractor, images, test)

    return _set(processes.from_first(fit_and_test), extractor)


def _with_test_logits(
    fitted: FittedHead, extractor: FeatureExtractor, images: UsableImages, test: Sequence[int]
) -> FittedHead:
    if not test:
        return fitted
    features = torch.from_numpy(extractor.plain.gather(images.digests(test)))
    return replace(fitted, test_logits=fitted.head.logits(features).numpy())


def _set(fitted: FittedHead, extractor: FeatureExtractor) -> FittedHead:
    extractor.network.backbone.set_head(fitted.head.weight, fitted.head.bias)
    return fitted


def _fit(
    extractor: FeatureExtractor,
    images: UsableImages,
    *,
    views: int,
    weighting: ClassWeighting,
    seed: int,
    folds: Sequence[int] | None,
) -> FittedHead:
    network, train = extractor.network, images.rows("train")
    rows = _train_rows(extractor, images, views)
    how: HeadOptions = {"classes": images.classes, "weighting": weighting, "device": network.head_device}
    divisions = fold_divisions(images, train, folds, seed=seed, copies=views + 1)
    held_out = _labeled(extractor, images, "validation") if divisions is None else divisions
    with network.report.task("Head", len(L2S), "fits") as advance:
        if isinstance(held_out, tuple):
            fitted = select_holdout(rows, held_out, **how, progress=advance)
        else:
            fitted = select_folds(rows, held_out, evaluated=len(train), **how, progress=advance)
    fitted = replace(fitted, curve=_curve(fitted, rows, held_out, images, seed=seed, how=how), fits=None)
    if divisions is not None and folds is None:
        fitted = _with_method(fitted, rows, images, train, seed=seed, how=how)
    if images.unlabeled:
        semi_supervised = _semi_supervised(rows, fitted, extractor, images, how)
        if isinstance(held_out, tuple):
            fitted = semi_supervised.holdout(held_out)
        else:
            fitted = semi_supervised.folds(held_out, len(train))
    for entry in fitted.sweep:
        network.report.detail("  " + ", ".join(f"{name} {value:.4g}" for name, value in entry.items()))
    return fitted


def _curve(
    fitted: FittedHead,
    rows: LabeledFeatures,
    held_out: NDArray[np.int64] | tuple[Tensor, Tensor],
    images: UsableImages,
    *,
    seed: int,
    how: HeadOptions,
) -> LearningCurve:
    """Return the learning curve of a selection, on its validation images or folds."""
    train = images.rows("train")
    labels, keys = images.labels(train), [images.splits.keys[row] for row in train]
    if images.unlabeled:
        return no_curve("it is not computed with unlabeled images")
    if fitted.fits is None or len(train) < FEWEST_PER_CLASS * images.classes:
        return no_curve(f"fewer than {FEWEST_PER_CLASS} images per class")
    order = order_in_class(keys, labels.tolist(), seed=seed)
    if isinstance(held_out, tuple):
        errors = holdout_part_errors(rows, held_out, fitted, order, how)
        wrong = errors.wrong[-1]
    else:
        errors = fold_part_errors(rows, fitted, held_out, order, how)
        seen = np.atleast_2d(held_out)[:, : len(train)].max(axis=0) >= 0
        wrong = fitted.logits[seen].argmax(axis=1) != labels[seen]
    folds = not isinstance(held_out, tuple)
    return learning_curve(errors, wrong, images=len(train), classes=images.classes, folds=folds)


def _semi_supervised(
    rows: LabeledFeatures, fitted: FittedHead, extractor: FeatureExtractor, images: UsableImages, how: HeadOptions
) -> SemiSupervisedFit:
    features, labels = rows
    if not isinstance(features, Tensor):  # wide ones: `with_unlabeled` bounds the number of rows
        features = torch.from_numpy(features.read(0, features.shape[0]))
    unlabeled = torch.from_numpy(extractor.plain.gather(images.unlabeled))
    return SemiSupervisedFit((features, labels), unlabeled, fitted, how)


def _labeled(extractor: FeatureExtractor, images: UsableImages, split: str) -> tuple[Tensor, Tensor]:
    rows = images.rows(split)
    return torch.from_numpy(extractor.plain.gather(images.digests(rows))), torch.from_numpy(images.labels(rows))


def _train_rows(extractor: FeatureExtractor, images: UsableImages, views: int) -> LabeledFeatures:
    """Return the features and labels of the training images and their views, in memory if they fit."""
    train = images.rows("train")
    rows = StoredRows(extractor, images.digests(train), views)
    features = torch.from_numpy(rows.read(0, rows.shape[0])) if math.prod(rows.shape) <= IN_MEMORY else rows
    return features, torch.from_numpy(np.tile(images.labels(train), views + 1))


def fold_divisions(
    images: UsableImages, train: Sequence[int], folds: Sequence[int] | None, *, seed: int, copies: int
) -> NDArray[np.int64] | None:
    """Return the folds of all rows, which keep groups together; None selects on validation images.

    Args:
        images: The images to fit and select on.
        train: Rows of the training images.
        folds: Their folds; None assigns folds if there are no validation images.
        seed: Seed for assigning images to folds.
        copies: Number of rows of each training image: itself and its views.
    """
    if folds is not None:
        return np.tile(folds, copies)
    if not images.splits.cross_validated:
        return None
    return np.tile(assign_folds(_keys(images, train), images.labels(train).tolist(), seed=seed), copies)


def _with_method(
    fitted: FittedHead,
    rows: LabeledFeatures,
    images: UsableImages,
    train: Sequence[int],
    *,
    seed: int,
    how: HeadOptions,
) -> FittedHead:
    """Add how images were held out, and the accuracy that folds of single images would have given."""
    known, single = images.labels(train).tolist(), None
    if images.similar:
        single_keys = [digest.hex() for digest in images.digests(train)]
        folds = np.tile(assign_folds(single_keys, known, seed=seed), len(rows[1]) // len(train))
        single = out_of_fold_accuracy(rows, folds, penalty=_penalty(fitted), evaluated=len(train), **how)
    return replace(fitted, method=fold_method(_keys(images, train), known), single_image_accuracy=single)


def _penalty(fitted: FittedHead) -> Penalty:
    return {"l2": fitted.l2, "within_weight": fitted.within_weight}


def _keys(images: UsableImages, train: Sequence[int]) -> list[str]:
    """Return a key for each training image; images with the same key must be in one fold."""
    keys = [images.splits.keys[row] for row in train]
    if len(set(keys)) < 2:
        raise DataError(
            f"all images of {images.dataset.root} are copies of one image, or in one group, so none can be held out to "
            "evaluate the others. Add other images, or use another --group-by."
        )
    return keys
