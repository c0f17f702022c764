"""Train later layers: start from the exact head, search the depth, evaluate the best tail.

Probing before fine-tuning follows Kumar et al. 2022, "Fine-tuning can distort pretrained features".
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from tlcli.backbones.heads import set_head
from tlcli.errors import UsageError
from tlcli.features.backbone import LoadedBackbone
from tlcli.features.extractor import FeatureExtractor, freeze_at
from tlcli.training.classifier import Calibration, Classifier, evaluate_rows
from tlcli.training.head.fit import fit_head
from tlcli.training.head.l2_selection import FittedHead
from tlcli.training.head.train import train_head
from tlcli.training.tail.checkpoints import Checkpoints
from tlcli.training.tail.fit import predict_logits_of_rows
from tlcli.training.tail.recipe import BATCH_SIZE, TailOptions
from tlcli.training.tail.search import DepthSearch, OnLines, SearchResult, feature_batch_size
from tlcli.training.tail.sources import TailData
from tlcli.training.usable_images import UsableImages


@dataclass(frozen=True, kw_only=True)
class TailStart:
    """What the training of a tail starts from."""

    network: LoadedBackbone
    images: UsableImages
    head: FittedHead | None
    """The exact head, which is in the network; None if training starts from a random one."""


def head_extractor(network: LoadedBackbone, options: TailOptions, workers: int) -> FeatureExtractor | None:
    """Return the extractor of the features before the head, if an exact head is a useful start.

    Return None if it is not: with random weights, or if the input of the network's head is not a vector.
    """
    if not options.pretrained and options.freeze != "auto":
        return None
    try:
        return freeze_at(network, "all", workers=workers, batch_size=feature_batch_size(network, options.batch_size))
    except UsageError as error:
        network.report.detail(f"  {error.message}")
        return None


def fit_start(extractor: FeatureExtractor, images: UsableImages, options: TailOptions) -> TailStart:
    """Fit the exact head, and put it into the network at its calibrated scale.

    Without the temperature, the first epochs would be spent on shrinking the logits.
    """
    fitted = fit_head(extractor, images, balance=options.balance, seed=options.seed)
    network = extractor.network_as_run
    head, temperature = fitted.head, fitted.temperature
    set_head(network.backbone.model, head.weight / temperature, head.bias / temperature)
    return TailStart(network=network, images=images, head=fitted)


def train_tail(
    start: TailStart,
    options: TailOptions,
    *,
    workers: int,
    checkpoints: Checkpoints | None,
    on_lines: OnLines,
) -> Classifier:
    """Train and evaluate later layers. Every process gets the same classifier.

    Args:
        start: Network, images and head to start from.
        options: What the user chose, such as `freeze` and the epochs.
        workers: Number of decoder processes.
        checkpoints: Where to save, and what to resume from; None in all processes but the first.
        on_lines: Called with the lines of `metrics.jsonl` so far, at the beginning and after each epoch.

    Raises:
        UsageError: the network cannot be cut there.
        DataError: images changed or vanished during training.
        MachineError: not enough disk space or memory.
    """
    images = start.images
    search = DepthSearch(start.network, images, options, workers=workers, checkpoints=checkpoints, on_lines=on_lines)
    result = search.run(start.head.logits / start.head.temperature if start.head else None)  # as `fit_start` scales it
    if options.refit and result.extractor.cut.layer == result.extractor.cut.of:
        return _refit_head(result, images, options)
    started = time.monotonic()
    calibration = Calibration(result.validation.temperature, result.log_prior)
    validation, test = images.rows("validation"), images.rows("test")
    data = TailData(
        extractor=result.extractor,
        images=images,
        batch_size=options.batch_size or BATCH_SIZE,
        views=options.views,
    )
    test_logits = None
    if test:
        test, test_logits = predict_logits_of_rows(data, test)
    return Classifier(
        extractor=result.extractor,
        images=images,
        validation=evaluate_rows(images, validation, result.validation.logits, calibration, method="holdout"),
        test=None if test_logits is None else evaluate_rows(images, test, test_logits, calibration),
        calibration=calibration,
        l2=start.head.l2 if start.head else None,
        lines=result.lines,
        training=result.training,
        stopped=result.stopped,
        feature_seconds=images.extraction.seconds + result.feature_seconds,
        training_seconds=result.seconds + time.monotonic() - started,
    )


def _refit_head(result: SearchResult, images: UsableImages, options: TailOptions) -> Classifier:
    """Fit the head on all images, as `--freeze all` does, after a search that kept the head alone."""
    extractor = result.extractor
    fitted = train_head(extractor, images.all_in_train(), views=0, balance=options.balance, seed=options.seed)
    return replace(
        fitted,
        lines=result.lines,
        training=result.training,
        stopped=result.stopped,
        feature_seconds=fitted.feature_seconds + result.feature_seconds,
        training_seconds=fitted.training_seconds + result.seconds,
    )
