"""Fit one tail: open its batches, train it, and leave its best weights in the network."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tlcli.backbones.multiply_adds import multiply_adds
from tlcli.features.extractor import FeatureExtractor
from tlcli.progress import Reporter
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.tail.compilation import pick_compiled
from tlcli.training.tail.distributed import predict_together, share_lost
from tlcli.training.tail.loop import TailTrainer, TrainingData, TrainingState
from tlcli.training.tail.recipe import Recipe
from tlcli.training.tail.sources import TailData
from tlcli.training.tail.start import train_log_prior
from tlcli.training.tail.validation import ValidationResult

WAITED = 0.2
"""Share of the time spent waiting for images above which a warning is shown."""

Saved = tuple[TrainingState, dict[str, torch.Tensor]]
"""State and tensors of a checkpoint."""


class SaveState(Protocol):
    """Saves the state of a trainer, if it is due or `now`."""

    def __call__(self, trainer: TailTrainer, *, now: bool = False) -> None:
        """Save it."""


@dataclass(frozen=True, kw_only=True)
class FittedTail:
    """A trained tail; its best weights are in the network."""

    validation: ValidationResult | None
    """None without validation images."""
    lines: list[dict[str, Any]]
    """One for each epoch."""
    best_epoch: int
    """From 1; 0 is the state before training."""
    stopped: str | None
    """Where the loss became NaN or infinite; None if it never did."""
    timed_out: bool
    """Whether training ended at the deadline, before its last epoch."""
    parameters: int
    """Number of trained parameters."""
    share: float
    """The tail's share of the network's multiply-adds."""
    feature_seconds: float
    seconds: float
    """Duration of training, including validation."""


def fit_tail(
    data: TailData,
    recipe: Recipe,
    *,
    weighting: ClassWeighting,
    save: SaveState,
    on_epoch: Callable[[list[dict[str, Any]]], None],
    resume_from: Saved | None = None,
    verbose: bool = True,
) -> FittedTail:
    """Train the tail of a cut network, and leave its best weights in the network; without validation images, the last.

    Args:
        data: The images to train and validate on, and the cut network.
        recipe: Epochs, learning rate, and everything else that steers the loop.
        weighting: The weights of the classes.
        save: Called after every step.
        on_epoch: Called after each epoch with the lines of all epochs so far.
        resume_from: State of a checkpoint; None starts from the network's weights.
        verbose: Report each epoch; otherwise only with `--verbose`.

    Raises:
        DataError: images changed or vanished during training.
        MachineError: not enough disk space or memory.
    """
    extractor, images, report = data.extractor, data.images, data.extractor.network.report
    train, validation, started = images.rows("train"), images.rows("validation"), time.monotonic()
    if extractor.cacheable:  # in one go, with the test images, which are evaluated at the end
        data.cache([*([] if extractor.augmented else train), *validation, *images.rows("test")], [0])
    held_out = data.open(validation) if validation else contextlib.nullcontext()
    with data.open(train, augmented=True) as train_source, held_out as validation_source:
        ready = time.monotonic()
        training_data = TrainingData(
            train=train_source,
            labels=torch.from_numpy(images.labels(train)),
            validation=validation_source,
            validation_labels=images.labels(validation),
            log_prior=train_log_prior(images, weighting),
        )
        trainer = _make_trainer(extractor, recipe, training_data, resume_from)

        def finish_epoch(line: dict[str, Any]) -> None:
            _report_epoch(line, recipe, data, verbose=verbose)
            on_epoch(trainer.state.lines)

        result, stopped = _run_trainer(trainer, save, finish_epoch, report)
        share_lost(images, report)
        if not stopped:  # otherwise a resumed training would not stop where this one did
            save(trainer, now=True)
    return FittedTail(
        validation=result,
        lines=trainer.state.lines,
        best_epoch=trainer.state.best_epoch + 1,
        stopped=stopped,
        timed_out=trainer.timed_out,
        parameters=sum(weight.numel() for weight in extractor.cut.tail.parameters() if weight.requires_grad),
        share=tail_share(extractor),
        feature_seconds=ready - started,
        seconds=time.monotonic() - ready,
    )


def _make_trainer(
    extractor: FeatureExtractor, recipe: Recipe, data: TrainingData, resume_from: Saved | None
) -> TailTrainer:
    network, cut = extractor.network, extractor.cut
    work = recipe.epochs * len(data.labels) * multiply_adds(cut.tail, cut.feature_shape)
    trainer = TailTrainer(
        network.backbone.model,
        cut.tail,
        data,
        recipe=recipe,
        device=network.device,
        compiled=pick_compiled(network.device, work),
        warn=network.report.warn,
    )
    if resume_from is not None:
        trainer.load(*resume_from)
    return trainer


def _run_trainer(
    trainer: TailTrainer, save: SaveState, on_epoch: Callable[[dict[str, Any]], None], report: Reporter
) -> tuple[ValidationResult | None, str | None]:
    """Train to the end; if a signal stops the training, save its state first."""
    try:
        with report.task("Train", trainer.steps_left(), "steps") as advance:
            return trainer.fit(save=lambda: save(trainer), on_step=advance, on_epoch=on_epoch)
    except BaseException as error:
        if trainer.resumable and not isinstance(error, Exception):  # Ctrl-C or a termination signal
            save(trainer, now=True)
        raise


def tail_share(extractor: FeatureExtractor) -> float:
    """Return the tail's share of the network's multiply-adds."""
    backbone = extractor.network.backbone
    whole = multiply_adds(backbone.model, (backbone.input.channels, backbone.input.height, backbone.input.width))
    return multiply_adds(extractor.cut.tail, extractor.cut.feature_shape) / whole


def predict_logits_of_rows(data: TailData, rows: Sequence[int]) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Run the network on the plain images of some rows.

    Returns:
        The M rows whose images can still be read, and their logits float32 [M, k].

    Raises:
        DataError: none can be read.
    """
    return run_on_rows(data.extractor.cut.tail, data, rows)


def run_on_rows(tail: nn.Module, data: TailData, rows: Sequence[int]) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Run a tail, or a part of it, on the plain images of some rows; see `predict_logits_of_rows`."""
    extractor = data.extractor
    with data.open(rows) as source:
        found, outputs = predict_together(tail, source, len(rows), extractor.network.device)
    share_lost(data.images, extractor.network.report)
    return [rows[index] for index in found], outputs


def _report_epoch(line: dict[str, Any], recipe: Recipe, data: TailData, *, verbose: bool) -> None:
    """Report an epoch in one line, with advice if the loop had to wait for images."""
    report, waited, loss = data.extractor.network.report, line["waited"], line["validation_loss"]
    validated = "" if loss is None else f"validation {100 * line['validation_accuracy']:.1f} %, loss {loss:.3f}  "
    (report.note if verbose else report.detail)(
        f"  epoch {line['epoch']:>2}/{recipe.epochs}  loss {line['train_loss']:.3f}  {validated}{line['seconds']:.1f} s"
        + (f", {100 * waited:.0f} % of it waiting for images" if waited >= 0.005 else "")
    )
    if waited > WAITED and line["epoch"] == 1:
        report.warn(f"training waited for images {100 * waited:.0f} % of the time. {_waiting_advice(data)}")


def _waiting_advice(data: TailData) -> str:
    """Return what to change if training waits for images."""
    extractor, advice = data.extractor, ["more --workers, if there are idle cores"]
    if extractor.augmented is not None:
        if extractor.cacheable and data.views is None:
            advice.append("--views 4, which caches four views of each image")
        advice.append("less augmentation (--noise and --rotate cost most)")
    elif extractor.cut.layer and not extractor.network.cache.on_disk:
        advice.append("the cache: leave --no-cache out")
    advice.append("smaller image files")
    return f"What helps: {'; '.join(advice)}."
