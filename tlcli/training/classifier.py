"""The whole way from a data set to a classifier: features, head, and, where layers are trained, a tail."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from tlcli import processes
from tlcli.backbones.heads import head_modules, set_head
from tlcli.datasets.dataset import Dataset
from tlcli.datasets.intensity_measurement import resolve_intensity
from tlcli.errors import UsageError
from tlcli.features.fingerprint import weights_digest
from tlcli.features.frozen import Frozen, describe_cut, freeze_at, known_features, plain_features
from tlcli.features.network import Network, describe_network, open_network
from tlcli.inference.calibration import calibrated_probabilities
from tlcli.inference.metrics import Metrics, Reliability
from tlcli.progress import Reporter
from tlcli.runs.directory import CHECKPOINTS
from tlcli.runs.provenance import settings_to_json, versions
from tlcli.settings import FinetuneSettings
from tlcli.storage.files import canonical_json, portable_name
from tlcli.training.head.fit import fit_head
from tlcli.training.head.l2_selection import Selection
from tlcli.training.onnx_model import portable_model
from tlcli.training.tail.checkpoints import IMAGES, Checkpoints
from tlcli.training.tail.precision import training_precision
from tlcli.training.usable_images import UsableImages, held_out, refuse_lost, scan, settle_images

if TYPE_CHECKING:
    from tlcli.training.tail.search import Outcome, Watch


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How the classifier did on some images."""

    metrics: dict[str, Any]
    rows: list[dict[str, Any]]
    """Of `predictions.parquet`, N of them."""
    images: list[int]
    """Their positions in `splits`."""
    logits: npt.NDArray[np.float32]
    """[N, k]."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A trained network, and all that training found out."""

    frozen: Frozen
    """The network, cut where it was trained."""
    images: UsableImages
    validation: Evaluation
    test: Evaluation | None
    temperature: float
    log_prior: npt.NDArray[np.float64] | None
    l2: float | None
    """Of the exact head that training ended, or began, with; None where there was none."""
    lines: list[dict[str, Any]]
    """Of `metrics.jsonl`."""
    training: dict[str, Any] | None
    """How later layers were trained: depths tried, epochs; None where all was frozen."""
    stopped: str | None
    """Where the loss was no longer a number; None where all went well."""
    onnx: bytes | None
    """The network for predicting without torch; None where it has to be torch."""
    feature_seconds: float
    training_seconds: float


def train_classifier(
    settings: FinetuneSettings, dataset: Dataset, directory: Path | None, report: Reporter, watch: Watch
) -> Classifier:
    """Train at the depth that the settings say; of several processes each gets the same.

    Args:
        settings: Of the run.
        dataset: The images.
        directory: The run's, for checkpoints; None for processes but the first.
        report: Shown the progress.
        watch: Where layers are trained, told all lines of `metrics.jsonl` so far.

    Raises:
        UsageError: the network can't be cut there.
        DataError: a class has no usable image, or nobody is left to judge.
        ArtifactError: weights, cache or checkpoint are broken, or the checkpoint is of other settings.
        MachineError: no room, no such device, or weights that would need a network.
    """
    freeze = settings.network.freeze
    intensity = processes.of_first(
        lambda: resolve_intensity(
            settings.network.intensity,
            dataset,
            fraction=held_out(dataset, settings),
            seed=settings.network.seed,
            workers=settings.compute.worker_count(),
            report=report,
        )
    )
    network = open_network(
        settings.network,
        settings.compute,
        settings.cache,
        classes=len(dataset.classes),
        images=None if freeze == "all" else len(dataset.samples),
        report=report,
        intensity=intensity,
        others_write=processes.size() > 1,
    )
    if freeze == "auto":
        report.note(describe_network(network, "as much frozen as serves"))
        return _train_tail(settings, dataset, network, directory, report, watch)
    cut = freeze_at(network, freeze, report).cut  # before any work: what can't be cut is refused here
    report.note(describe_network(network, describe_cut(cut)))
    if cut.layer < cut.of:
        return _train_tail(settings, dataset, network, directory, report, watch)
    return _train_head(replace(settings, network=replace(settings.network, freeze="all")), dataset, network, report)


def _train_head(settings: FinetuneSettings, dataset: Dataset, network: Network, report: Reporter) -> Classifier:
    """With everything before the head frozen: an exact fit on features."""
    started = time.monotonic()
    frozen, images, selection, feature_seconds = _fit_head(settings, dataset, network, report)
    rows, test = images.rows("train" if images.splits.cross_validated else "validation"), images.rows("test")

    def judge_test() -> npt.NDArray[np.float32] | None:
        if not test:
            return None
        features = torch.from_numpy(frozen.plain.gather(images.digests(test)))
        return selection.head.logits(features).numpy()

    test_logits = processes.of_first(judge_test)
    return Classifier(
        frozen=frozen,
        images=images,
        validation=_evaluate(images, rows, selection.logits, selection, method=selection.method),
        test=None if test_logits is None else _evaluate(images, test, test_logits, selection),
        temperature=selection.temperature,
        log_prior=selection.log_prior,
        l2=selection.l2,
        lines=selection.sweep,
        training=None,
        stopped=None,
        onnx=processes.only_first(lambda: portable_model(frozen, selection.head)),
        feature_seconds=feature_seconds,
        training_seconds=time.monotonic() - started - feature_seconds,
    )


def _fit_head(
    settings: FinetuneSettings, dataset: Dataset, network: Network, report: Reporter
) -> tuple[Frozen, UsableImages, Selection, float]:
    """Features of all images before the head, the images' splits, and the head, which is in the network then."""
    views = settings.training.views if settings.network.freeze == "all" else None
    augmentation = settings.augmentation if views else None
    frozen = freeze_at(network, "all", report, augmentation=augmentation, seed=settings.network.seed)
    paths = [sample.path for sample in dataset.samples]
    compute = settings.compute if settings.network.freeze == "all" else network.for_features(settings.compute)
    extraction, seconds = plain_features(frozen, paths, compute, verify=settings.cache.verify, report=report)
    images = settle_images(dataset, extraction, settings, report)
    if views:
        train = images.rows("train")
        paths, digests = images.paths(train), images.digests(train)
        assert frozen.augmented is not None  # settings see to it
        distorted, more = known_features(
            frozen, frozen.augmented, paths, digests, range(1, views + 1), settings.compute, report=report
        )
        refuse_lost(distorted, images.digests(train))
        seconds += more
    selection = processes.of_first(lambda: fit_head(frozen, images, settings, views or 0, report))
    set_head(network.backbone.model, selection.head.weight, selection.head.bias)
    return frozen, images, selection, seconds


def _train_tail(
    settings: FinetuneSettings,
    dataset: Dataset,
    network: Network,
    directory: Path | None,
    report: Reporter,
    watch: Watch,
) -> Classifier:
    """Later layers too, starting from the exact head (probing, then fine-tuning: Kumar et al. 2022)."""
    from tlcli.training.tail.search import Search  # with optimizers and compilers, which take a while to import
    from tlcli.training.tail.train import evaluate_tail

    start = weights_digest(network.backbone.model, head_modules(network.backbone.model))[:16]
    if _has_start(settings, network, report):
        _, images, selection, feature_seconds = _fit_head(settings, dataset, network, report)
        # As sure of itself as it has reason to be, or the first epochs would go into shrinking its logits.
        head, temperature = selection.head, selection.temperature
        set_head(network.backbone.model, head.weight / temperature, head.bias / temperature)
    else:
        selection = None
        extraction, feature_seconds = scan(dataset, network, settings.compute.worker_count(), report)
        images = settle_images(dataset, extraction, settings, report)
    origin = (
        settings_to_json(settings)
        | versions()
        | {
            IMAGES: _images_hash(images),
            "first weights": start,
            "trained in": training_precision(settings.compute.precision, network.device),
            "on": network.device.type,
            # Several processes may be more or fewer when they go on: the same to rounding.
            "threads": torch.get_num_threads() if processes.size() == 1 else "of several processes",
        }
    )

    def open_checkpoints() -> Checkpoints:
        assert directory is not None  # the first process has one
        return Checkpoints(directory / CHECKPOINTS, origin, resume=settings.resume, report=report)

    checkpoints = processes.only_first(open_checkpoints)
    search = Search(network, images, settings, report, checkpoints, watch)
    outcome = search.run(selection.logits if selection else None)
    started = time.monotonic()
    validation, test = images.rows("validation"), images.rows("test")
    if test:
        test, test_logits = evaluate_tail(outcome.frozen, images, test, settings, report)
    return Classifier(
        frozen=outcome.frozen,
        images=images,
        validation=_evaluate(images, validation, outcome.judgment.logits, outcome, method="holdout"),
        test=_evaluate(images, test, test_logits, outcome) if test else None,
        temperature=outcome.temperature,
        log_prior=outcome.log_prior,
        l2=selection.l2 if selection else None,
        lines=outcome.lines,
        training={"tried": outcome.tried, "best": outcome.best, "stopped": outcome.stopped, "recipe": outcome.recipe},
        stopped=outcome.stopped,
        onnx=processes.only_first(lambda: portable_model(outcome.frozen, None)),
        feature_seconds=feature_seconds + outcome.feature_seconds,
        training_seconds=outcome.seconds + time.monotonic() - started,
    )


def _has_start(settings: FinetuneSettings, network: Network, report: Reporter) -> bool:
    """Whether an exact head is a start: not on features of random weights, nor where no vector comes before it."""
    if settings.network.weights == "none" and settings.network.freeze != "auto":
        return False
    try:
        freeze_at(network, "all", report)
    except UsageError as error:
        report.detail(f"  {error.message}")
        return False
    return True


def _images_hash(images: UsableImages) -> str:
    """Of the images that are learnt from and judged by, with their labels, in order: not of their names."""
    splits = images.splits
    rows = [
        [digest.hex(), sample.label, sample.split]
        for digest, sample in zip(splits.digests, splits.samples, strict=True)
    ]
    return hashlib.sha256(canonical_json(rows)).hexdigest()[:16]


def _evaluate(
    images: UsableImages,
    rows: Sequence[int],
    logits: npt.NDArray[np.float32],
    calibration: Selection | Outcome,
    *,
    method: str | None = None,
) -> Evaluation:
    """Metrics and predictions of the images `rows`, from their logits [len(rows), k]."""
    samples = [images.splits.samples[row] for row in rows]
    classes = images.dataset.classes
    found = calibrated_probabilities(logits, calibration.temperature, calibration.log_prior)
    said = logits.argmax(axis=1)
    metrics = Metrics(classes)
    labels = np.array([sample.label for sample in samples])
    metrics.update(found, labels, said)
    uncalibrated = Reliability()
    raw = calibrated_probabilities(logits, 1.0, calibration.log_prior)
    uncalibrated.update(raw[np.arange(len(said)), said], said == labels)
    predictions = [
        {
            "path": portable_name(sample.path),
            "label": classes[sample.label],
            "split": "test" if sample.split == "test" else "validation",
            "predicted": classes[label],
            "confidence": float(row[label]),
            "probabilities": row.tolist(),
        }
        for sample, label, row in zip(samples, said.tolist(), found, strict=True)
    ]
    figures = metrics.result() | {"uncalibrated": uncalibrated.result()}
    return Evaluation(
        metrics=figures | ({"method": method} if method else {}), rows=predictions, images=list(rows), logits=logits
    )
