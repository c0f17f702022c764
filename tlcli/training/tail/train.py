"""Train later layers: search the depth from a start, and evaluate the best tail."""

from __future__ import annotations

import time
from dataclasses import replace

from tlcli.features.extractor import freeze_at
from tlcli.training.classifier import Calibration, Classifier, evaluate_rows
from tlcli.training.head.train import train_head
from tlcli.training.learning_curve import no_curve
from tlcli.training.tail.checkpoints import Checkpoints
from tlcli.training.tail.fit import predict_logits_of_rows
from tlcli.training.tail.novelty import fit_tail_novelty
from tlcli.training.tail.recipe import BATCH_SIZE, TailOptions
from tlcli.training.tail.search import DepthSearch
from tlcli.training.tail.search_progress import OnLines, SearchResult
from tlcli.training.tail.sources import TailData
from tlcli.training.tail.start import TailStart
from tlcli.training.usable_images import UsableImages


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
    if not start.divisions:
        train = len(images.rows("train"))
        start.network.report.note(f"  {train} training images are too few to compare depths: the head alone is trained")
        head = freeze_at(start.network, "all", workers=workers)
        return train_head(head, images, views=0, weighting=options.weighting, seed=options.seed)
    search = DepthSearch(start, options, workers=workers, checkpoints=checkpoints, on_lines=on_lines)
    result = search.run()
    if options.refit and result.extractor.cut.layer == result.extractor.cut.of:
        return _refit_head(result, images, options)
    started = time.monotonic()
    calibration = Calibration(result.validation.temperature, result.log_prior)
    test = images.rows("test")
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
        validation=evaluate_rows(images, start.held_out, result.validation.logits, calibration, method=start.method),
        test=None if test_logits is None else evaluate_rows(images, test, test_logits, calibration),
        calibration=calibration,
        l2=start.head.l2 if start.head else None,
        curve=(start.head.curve if start.head else None) or no_curve("training did not start from an exact head"),
        lines=result.lines,
        training=result.training,
        stopped=result.stopped,
        novelty=fit_tail_novelty(data, result, start),
        refitted=result.training["refit_epochs"] > 0,
        feature_seconds=images.extraction.seconds + result.feature_seconds,
        training_seconds=result.seconds + time.monotonic() - started,
    )


def _refit_head(result: SearchResult, images: UsableImages, options: TailOptions) -> Classifier:
    """Fit the head as `--freeze all` does, on all images, after a search that kept the head alone."""
    extractor = result.extractor
    images = images if options.chosen_validation else images.all_in_train()
    fitted = train_head(extractor, images, views=0, weighting=options.weighting, seed=options.seed, refit=True)
    return replace(
        fitted,
        lines=result.lines,
        training=result.training,
        stopped=result.stopped,
        feature_seconds=fitted.feature_seconds + result.feature_seconds,
        training_seconds=fitted.training_seconds + result.seconds,
    )
