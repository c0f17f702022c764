"""Train with everything before the head frozen: extract features, fit the head, evaluate it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

from tlcli.features.extractor import FeatureExtractor
from tlcli.training.classifier import Calibration, Classifier, Evaluation, evaluate_rows
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.head.fit import cache_views, fit_head, refit_head
from tlcli.training.head.l2_selection import FittedHead
from tlcli.training.head.precision import check_precision
from tlcli.training.novelty import fit_head_novelty
from tlcli.training.usable_images import UsableImages


def train_head(
    extractor: FeatureExtractor,
    images: UsableImages,
    *,
    views: int,
    weighting: ClassWeighting,
    seed: int,
    refit: bool = False,
) -> Classifier:
    """Fit and evaluate the head on the stored features of its images. Every process gets the same classifier.

    Args:
        extractor: The network, cut before its head; its plain store has the features of `images`.
        images: The images to fit, select and evaluate on.
        views: Number of augmented views of each training image to fit on as well.
        weighting: The weights of the classes.
        seed: Seed for assigning images to folds.
        refit: Fit on the validation images as well in the end, with the L2 chosen on them.

    Raises:
        UsageError: predictions in OpenVINO in bf16 differ too much from those in fp32.
        DataError: images changed during training, or none can be held out.
        MachineError: not enough disk space or memory for the features of views.
    """
    started = time.monotonic()
    view_seconds = cache_views(extractor, images, views) if views else 0.0
    held_out, test = images.rows("train" if images.splits.cross_validated else "validation"), images.rows("test")
    fitted = fit_head(extractor, images, views=views, weighting=weighting, seed=seed, test=test)
    checking = time.monotonic()
    check = check_precision(extractor, images, fitted, weighting=weighting, seed=seed)
    view_seconds += time.monotonic() - checking
    refit = refit and not images.splits.cross_validated
    if refit:
        everything = images.all_in_train()
        view_seconds += cache_views(extractor, everything, views) if views else 0.0
        fitted = refit_head(extractor, everything, fitted, views=views, weighting=weighting, test=test)
    assert fitted.curve is not None
    calibration = Calibration(fitted.temperature, fitted.log_prior)
    return Classifier(
        extractor=extractor,
        images=images,
        validation=_validation(images, held_out, fitted, calibration),
        test=None if fitted.test_logits is None else evaluate_rows(images, test, fitted.test_logits, calibration),
        calibration=calibration,
        l2=fitted.l2,
        curve=fitted.curve,
        lines=fitted.sweep,
        training=None,
        novelty=fit_head_novelty(extractor, images, held_out, fitted.logits, refitted=refit),
        refitted=refit,
        precision_check=check,
        stopped=None,
        feature_seconds=images.extraction.seconds + view_seconds,
        training_seconds=time.monotonic() - started - view_seconds,
    )


def _validation(
    images: UsableImages, held_out: Sequence[int], fitted: FittedHead, calibration: Calibration
) -> Evaluation:
    validation = evaluate_rows(
        images,
        held_out,
        fitted.logits,
        calibration,
        method=fitted.method,
        single_image_accuracy=fitted.single_image_accuracy,
    )
    validation.metrics["unlabeled"] = asdict(fitted.unlabeled) if fitted.unlabeled else None
    return validation
