"""A trained classifier: the network, its metrics and predictions on held-out images, and how it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tlcli.datasets.group_pattern import suggest_group_by
from tlcli.datasets.splits import SplitDataset
from tlcli.features.extractor import FeatureExtractor
from tlcli.inference.calibration import calibrated_probabilities
from tlcli.inference.held_out import LARGE_DIFFERENCE
from tlcli.inference.metrics import Metrics, Reliability
from tlcli.storage.files import portable_name
from tlcli.training.learning_curve import LearningCurve
from tlcli.training.novelty import FittedNovelty
from tlcli.training.precision_check import PrecisionCheck
from tlcli.training.usable_images import UsableImages


@dataclass(frozen=True)
class Calibration:
    """What turns logits into probabilities."""

    temperature: float
    """Divisor of the logits."""
    log_prior: npt.NDArray[np.float64] | None
    """[k], added to the logits if classes were weighted; else None."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics and predictions on N images that the evaluated network was not trained on."""

    metrics: dict[str, Any]
    rows: list[dict[str, Any]]
    """N rows of `predictions.parquet`."""
    images: list[int]
    """Rows of the images in `UsableImages`."""
    logits: npt.NDArray[np.float32]
    """[N, k]."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A trained network, and everything that training found out."""

    extractor: FeatureExtractor
    """The network, cut where it was trained."""
    images: UsableImages
    validation: Evaluation
    test: Evaluation | None
    calibration: Calibration
    l2: float | None
    """L2 of the exact head that training ended or started with; None if there is none."""
    lines: list[dict[str, Any]]
    """Lines of `metrics.jsonl`."""
    training: dict[str, Any] | None
    """How later layers were trained: depths tried, epochs; None if everything before the head was frozen."""
    stopped: str | None
    """Where the loss became NaN or infinite; None if it never did."""
    feature_seconds: float
    training_seconds: float
    novelty: FittedNovelty | None
    """Tells known from unknown images; None if that is impossible."""
    curve: LearningCurve
    """Accuracy of the exact head by the number of training images."""
    precision_check: PrecisionCheck | None = None
    """How predictions in bf16 compare with those in fp32, if OpenVINO computed features in bf16."""
    refitted: bool = False
    """Whether the weights were trained on the validation images as well, after the evaluation on them."""

    @property
    def splits(self) -> SplitDataset:
        """The splits as the final weights have seen them: nothing is held out after a last training on all images."""
        return (self.images.all_in_train() if self.refitted else self.images).splits


def evaluate_rows(
    images: UsableImages,
    rows: Sequence[int],
    logits: npt.NDArray[np.float32],
    calibration: Calibration,
    *,
    method: str | None = None,
    single_image_accuracy: float | None = None,
) -> Evaluation:
    """Compute the metrics and predictions of some images from their logits.

    Args:
        images: The usable images, with their labels and paths.
        rows: Indices of the N samples to evaluate.
        logits: float32 [N, k], not divided by the temperature.
        calibration: Temperature and class prior, applied to the logits.
        method: How the images were held out, such as `5-fold`; added to the metrics, with the groups that were kept
            together.
        single_image_accuracy: Accuracy if groups had been divided between folds; None if it is unknown.
    """
    samples = [images.splits.samples[row] for row in rows]
    classes = images.dataset.classes
    labels, predicted = np.array([sample.label for sample in samples]), logits.argmax(axis=1)
    calibrated = calibrated_probabilities(logits, calibration.temperature, calibration.log_prior)
    metrics = Metrics(classes)
    metrics.update(calibrated, labels, predicted)
    uncalibrated = Reliability()
    raw = calibrated_probabilities(logits, 1.0, calibration.log_prior)
    uncalibrated.update(raw[np.arange(len(predicted)), predicted], predicted == labels)
    predictions = [
        {
            "path": portable_name(sample.path),
            "digest": digest,
            "group": images.splits.keys[place],
            "label": classes[sample.label],
            "split": "test" if sample.split == "test" else "validation",
            "predicted": classes[label],
            "confidence": float(row[label]),
            "probabilities": row.tolist(),
        }
        for place, sample, digest, label, row in zip(
            rows, samples, images.digests(rows), predicted.tolist(), calibrated, strict=True
        )
    ]
    figures = metrics.result() | {"uncalibrated": uncalibrated.result()}
    figures["near_copies"] = _near_copies(images, rows, predicted == labels)
    if method:
        groups = None if images.dataset.has_split("validation") else _groups(images, figures, single_image_accuracy)
        figures |= {"method": method, "groups": groups}
    return Evaluation(metrics=figures, rows=predictions, images=list(rows), logits=logits)


def _near_copies(images: UsableImages, rows: Sequence[int], correct: npt.NDArray[np.bool_]) -> dict[str, Any] | None:
    """Return the number of images that are near copies of training images, and the accuracy without them."""
    copies = np.array([row in images.near_copies for row in rows], dtype=bool)
    if not copies.any():
        return None
    return {
        "images": int(copies.sum()),
        "accuracy_without": None if copies.all() else float(correct[~copies].mean()),
    }


def _groups(
    images: UsableImages, metrics: dict[str, Any], single_image_accuracy: float | None
) -> dict[str, Any] | None:
    """Return the groups of similar images that folds and splits keep together; None if they were not looked for."""
    if images.similar is None:
        return None
    large = single_image_accuracy is not None and single_image_accuracy - metrics["accuracy"] >= LARGE_DIFFERENCE
    return {
        "groups": len(images.similar),
        "largest": max(map(len, images.similar), default=1),
        "images": sum(map(len, images.similar)),
        "single_image_accuracy": single_image_accuracy,
        "group_by": suggest_group_by(images.dataset, images.similar) if large else None,
    }
