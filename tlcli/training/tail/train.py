"""Training one tail: the batches it learns from and is judged by, its checkpoints, and what came out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from tlcli import processes
from tlcli.backbones.multiply_adds import multiply_adds
from tlcli.features.frozen import Frozen, known_features
from tlcli.images.loader import ImageLoader
from tlcli.progress import Reporter
from tlcli.settings import FinetuneSettings
from tlcli.training.head.l2_selection import class_log_prior
from tlcli.training.tail.batches import Source
from tlcli.training.tail.compilation import pick_compiled
from tlcli.training.tail.loop import State, TailTrainer
from tlcli.training.tail.recipe import BATCH_SIZE, Recipe
from tlcli.training.tail.sources import CachedSource, StreamedSource
from tlcli.training.tail.validation import Judgment, logits_of
from tlcli.training.usable_images import UsableImages, refuse_lost

WAITED = 0.2
"""Share of the time spent waiting for images above which it is worth a warning."""

Tensors = dict[str, torch.Tensor]


class Save(Protocol):
    """Where a trainer's state is saved, now and then or `now`."""

    def __call__(self, trainer: TailTrainer, *, now: bool = False) -> None:
        """Save it."""


@dataclass(frozen=True, kw_only=True)
class TailResult:
    """A trained tail; its weights are in the network."""

    judgment: Judgment
    """On the validation images."""
    lines: list[dict[str, Any]]
    """One for each epoch."""
    best_epoch: int
    """From 1; 0 is where training began."""
    stopped: str | None
    """Where the loss was no longer a number; None where all went well."""
    parameters: int
    """Trained ones."""
    share: float
    """Of the network's multiply-adds."""
    feature_seconds: float
    seconds: float
    """Of training, judging included."""


def train_tail(
    frozen: Frozen,
    images: UsableImages,
    recipe: Recipe,
    settings: FinetuneSettings,
    report: Reporter,
    *,
    save: Save,
    finished: Callable[[list[dict[str, Any]]], None],
    begun: tuple[State, Tensors] | None = None,
) -> TailResult:
    """Train the tail of a cut network, and leave its best weights in the network.

    Args:
        frozen: The cut network.
        images: To learn from, and to be judged on.
        recipe: How.
        settings: Of the run.
        report: Shown each epoch.
        save: Where its state goes.
        finished: Told after each epoch the lines of all so far.
        begun: State and tensors to go on from; None begins.

    Raises:
        DataError: images vanished meanwhile.
        MachineError: no room for features, or no memory.
    """
    network, cut = frozen.network, frozen.cut
    share = tail_share(frozen)
    train, validation = images.rows("train"), images.rows("validation")
    work = recipe.epochs * len(train) * multiply_adds(cut.tail, cut.feature_shape)
    started = time.monotonic()
    if _cacheable(frozen):  # in one go, those of test too, which are judged at the end
        rows = [*([] if frozen.augmented else train), *validation, *images.rows("test")]
        fill(frozen, images, rows, [0], settings, report)
    with (
        open_source(frozen, images, train, settings, report, augmented=True) as train_source,
        open_source(frozen, images, validation, settings, report) as validation_source,
    ):
        ready = time.monotonic()
        trainer = TailTrainer(
            network.backbone.model,
            cut.tail,
            train=train_source,
            labels=torch.from_numpy(images.labels(train)),
            validation=validation_source,
            validation_labels=images.labels(validation),
            log_prior=log_prior_of(images) if settings.balance else None,
            recipe=recipe,
            device=network.device,
            compiled=pick_compiled(network.device, work),
            warn=report.warn,
        )
        if begun is not None:
            trainer.load(*begun)
        advice = _advice(frozen, settings)

        def tell(line: dict[str, Any]) -> None:
            _tell(line, recipe, advice, report)
            finished(trainer.state.lines)

        try:
            with report.task("Train", trainer.steps_left(), "steps") as advance:
                judgment, stopped = trainer.fit(
                    save=lambda: save(trainer),
                    stepped=advance,
                    finished=tell,
                )
        except BaseException as error:
            if trainer.resumable and not isinstance(error, Exception):  # Ctrl-C or a termination signal
                save(trainer, now=True)
            raise
        _share_losses(images, report)
        if not stopped:  # or a training that went on from there would not stop where this one did
            save(trainer, now=True)
    return TailResult(
        judgment=judgment,
        lines=trainer.state.lines,
        best_epoch=trainer.state.best_epoch + 1,
        stopped=stopped,
        parameters=sum(parameter.numel() for parameter in cut.tail.parameters() if parameter.requires_grad),
        share=share,
        feature_seconds=ready - started,
        seconds=time.monotonic() - ready,
    )


def _share_losses(images: UsableImages, report: Reporter) -> None:
    """Have every process know which images the others could not read again; each has told of its own."""
    told = set(images.lost)
    for others in processes.gather(dict(images.lost)):
        images.lost.update(others)
    for path in images.lost.keys() - told:
        report.warn(f"{path} was left out: {images.lost[path]}")


def tail_share(frozen: Frozen) -> float:
    """The tail's share of the network's multiply-adds."""
    backbone = frozen.network.backbone
    whole = multiply_adds(backbone.model, (backbone.input.channels, backbone.input.height, backbone.input.width))
    return multiply_adds(frozen.cut.tail, frozen.cut.feature_shape) / whole


def log_prior_of(images: UsableImages) -> npt.NDArray[np.float64]:
    """Logarithms of the classes' frequencies in train, float [k]."""
    return class_log_prior(torch.from_numpy(images.labels(images.rows("train"))), images.classes)


def evaluate_tail(
    frozen: Frozen, images: UsableImages, rows: Sequence[int], settings: FinetuneSettings, report: Reporter
) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Those of the rows whose images are still there, and their logits [M, k] of plain images."""
    with open_source(frozen, images, rows, settings, report) as source:
        found, logits = logits_of(frozen.cut.tail, source, len(rows), frozen.network.device)
    _share_losses(images, report)
    return [rows[index] for index in found], logits


def _cacheable(frozen: Frozen) -> bool:
    return frozen.cut.layer > 0 and frozen.network.root is not None


@contextlib.contextmanager
def open_source(
    frozen: Frozen,
    images: UsableImages,
    rows: Sequence[int],
    settings: FinetuneSettings,
    report: Reporter,
    *,
    augmented: bool = False,
) -> Iterator[Source]:
    """The batches of some images: from the cache where they can be, which is filled first; else from the images.

    Args:
        frozen: The cut network.
        images: All of them.
        rows: Which.
        settings: Of the run.
        report: Shown the progress.
        augmented: Distort them as the settings say.
    """
    paths, digests = images.paths(rows), images.digests(rows)
    augmented = augmented and frozen.augmented is not None
    views = settings.training.views if _cacheable(frozen) else None

    def view_of(epoch: int) -> int:
        return 0 if not augmented else 1 + (epoch if views is None else epoch % views)

    if not _cacheable(frozen) or (augmented and views is None):
        options = frozen.decode_options(augmented=augmented)
        workers, ahead = settings.compute.worker_count(), 3 * (settings.compute.batch_size or BATCH_SIZE)
        with ImageLoader(options, workers=workers, ahead=ahead) as loader:
            if augmented:
                loader.start()  # they import torch, which no epoch should be seen waiting for
            yield StreamedSource(frozen, loader, paths, digests, view_of, images.lost, report)
        return
    store = frozen.augmented if augmented and frozen.augmented is not None else frozen.plain
    fill(frozen, images, rows, range(1, views + 1) if augmented and views else [0], settings, report)
    yield CachedSource(store, digests, view_of)


def fill(
    frozen: Frozen,
    images: UsableImages,
    rows: Sequence[int],
    views: Sequence[int],
    settings: FinetuneSettings,
    report: Reporter,
) -> None:
    """Compute into the cache what it lacks of the views of some images: 0, or some above.

    Raises:
        DataError: an image that it lacks isn't there any more.
    """
    store = frozen.plain if 0 in views or frozen.augmented is None else frozen.augmented
    digests, compute = images.digests(rows), frozen.network.for_features(settings.compute)
    extraction, _ = known_features(frozen, store, images.paths(rows), digests, views, compute, report=report)
    refuse_lost(extraction, digests)


def _tell(line: dict[str, Any], recipe: Recipe, advice: str, report: Reporter) -> None:
    """An epoch in one line, and what to do where the loop had to wait for images."""
    waited = line["waited"]
    report.note(
        f"  epoch {line['epoch']:>2}/{recipe.epochs}  loss {line['train_loss']:.3f}  validation "
        f"{100 * line['validation_accuracy']:.1f} %, loss {line['validation_loss']:.3f}  "
        f"{line['seconds']:.1f} s" + (f", {100 * waited:.0f} % of it waiting for images" if waited >= 0.005 else "")
    )
    if waited > WAITED and line["epoch"] == 1:
        report.warn(f"training waited for images {100 * waited:.0f} % of the time. {advice}")


def _advice(frozen: Frozen, settings: FinetuneSettings) -> str:
    """What to change where training waits for images."""
    found = ["more --workers, if there are cores left"]
    if frozen.augmented is not None:
        if _cacheable(frozen) and settings.training.views is None:
            found.append("--views 4, which caches four views of each image")
        found.append("fewer distortions (--noise and --rotate cost most)")
    elif frozen.cut.layer and frozen.network.root is None:
        found.append("the cache, which --no-cache leaves out")
    found.append("smaller image files")
    return f"What helps: {'; '.join(found)}."
