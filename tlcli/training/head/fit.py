"""Fit the softmax head on the features before it: all of the training with `--freeze all`, else a tail's start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from tlcli import processes
from tlcli.backbones.heads import set_head
from tlcli.datasets.splits import assign_folds, fold_method
from tlcli.errors import DataError
from tlcli.features.extractor import FeatureExtractor
from tlcli.features.stored_rows import IN_MEMORY, StoredRows
from tlcli.training.head.l2_selection import (
    L2S,
    FittedHead,
    FoldOptions,
    out_of_fold_accuracy,
    select_folds,
    select_holdout,
)
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
    balance: bool,
    seed: int,
    test: Sequence[int] = (),
) -> FittedHead:
    """Fit the head on train and `views` cached views of it, and put it into the network.

    L2 and temperature are chosen on plain images that were held out. Under torchrun, only the first process fits.

    Args:
        extractor: A network cut before its head, whose features are all stored.
        images: The images to fit and select on.
        views: Number of cached augmented views of each training image.
        balance: Weight classes by their inverse frequency.
        seed: Seed for assigning images to folds.
        test: Rows of the images whose logits to return as `test_logits`.

    Raises:
        DataError: all images are in one group, so none can be held out, or a feature is NaN or infinite.
    """

    def fit_and_test() -> FittedHead:
        fitted = _fit(extractor, images, views=views, balance=balance, seed=seed)
        if not test:
            return fitted
        features = torch.from_numpy(extractor.plain.gather(images.digests(test)))
        return replace(fitted, test_logits=fitted.head.logits(features).numpy())

    fitted = processes.from_first(fit_and_test)
    set_head(extractor.network.backbone.model, fitted.head.weight, fitted.head.bias)
    return fitted


def _fit(extractor: FeatureExtractor, images: UsableImages, *, views: int, balance: bool, seed: int) -> FittedHead:
    network, train = extractor.network, images.rows("train")
    digests = images.digests(train)
    rows = StoredRows(extractor, digests, views)
    features = torch.from_numpy(rows.read(0, rows.shape[0])) if math.prod(rows.shape) <= IN_MEMORY else rows
    labels = torch.from_numpy(np.tile(images.labels(train), views + 1))
    with network.report.task("Head", len(L2S), "fits") as advance:
        if images.splits.cross_validated:
            how: FoldOptions = {
                "classes": images.classes,
                "evaluated": len(train),
                "balance": balance,
                "device": network.head_device,
            }
            keys, known = _keys(images, train), images.labels(train).tolist()
            folds = np.tile(assign_folds(keys, known, seed=seed), views + 1)
            fitted = select_folds((features, labels), folds, **how, progress=advance)
            single = None
            if images.similar:
                single_keys = [digest.hex() for digest in digests]
                folds = np.tile(assign_folds(single_keys, known, seed=seed), views + 1)
                single = out_of_fold_accuracy((features, labels), folds, l2=fitted.l2, **how)
            fitted = replace(fitted, method=fold_method(keys, known), single_image_accuracy=single)
        else:
            validation = images.rows("validation")
            fitted = select_holdout(
                (features, labels),
                (
                    torch.from_numpy(extractor.plain.gather(images.digests(validation))),
                    torch.from_numpy(images.labels(validation)),
                ),
                classes=images.classes,
                balance=balance,
                device=network.head_device,
                progress=advance,
            )
    for entry in fitted.sweep:
        network.report.detail("  " + ", ".join(f"{name} {value:.4g}" for name, value in entry.items()))
    return fitted


def _keys(images: UsableImages, train: Sequence[int]) -> list[str]:
    """Return a key for each training image; images with the same key must be in one fold."""
    keys = [images.splits.keys[row] for row in train]
    if len(set(keys)) < 2:
        raise DataError(
            f"all images of {images.dataset.root} are copies of one image, or in one group, so none can be held out to "
            "evaluate the others. Add other images, or use another --group-by."
        )
    return keys
