"""Render report.html, a self-contained page about a run."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tlcli.datasets.class_names import in_reading_order, reading_order
from tlcli.inference.held_out import describe_groups, describe_method, describe_near_copies, describe_unlabeled
from tlcli.inference.outcomes import depth_name, describe_depth_choice, describe_forecast, describe_forgetting
from tlcli.reports.decisions import ReportDecisions
from tlcli.reports.overview import Overview
from tlcli.reports.page import page_environment, read_asset
from tlcli.runs.run import describe_freeze, describe_parents

MATRIX_CLASSES = 30
"""Classes in the confusion matrix, at most."""
LISTED_CONFUSIONS = 12
"""Confusions that are listed, at most."""
TOP_CLASSES = 3
"""Classes shown for an image."""


@dataclass(frozen=True, kw_only=True)
class ReportImage:
    """An evaluated image that has a thumbnail."""

    split: int
    """Index of its split."""
    truth: int
    """Index of the true class."""
    predicted: int
    """Index of the predicted class."""
    path: str
    """Path relative to the root of the data, or absolute."""
    top: list[tuple[int, float]]
    """The top classes with their probabilities, in descending order."""
    novelty: float | None
    """How untypical a validation image is; None for others, and if it is unknown."""


@dataclass(frozen=True, kw_only=True)
class ReportGallery:
    """The N images that have a thumbnail, and how they are shown."""

    images: Sequence[ReportImage]
    overview: Overview
    """Their thumbnails, and positions on the map."""
    mapped_vectors: str
    """What the map shows, such as "the logits"."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedSplit:
    """A split that the run was evaluated on: test or validation."""

    name: str
    metrics: dict[str, Any]
    """The metrics from `Metrics.result`, with the metrics before temperature scaling under `uncalibrated`."""


def run_page(
    info: dict[str, Any],
    *,
    name: str,
    splits: Sequence[EvaluatedSplit],
    gallery: ReportGallery,
    decisions: ReportDecisions,
    lines: Sequence[dict[str, Any]],
    command: str,
) -> str:
    """Render the page of a run.

    Args:
        info: The content of `run.json`, except checksums.
        name: The run's name, for the title.
        splits: The evaluated splits; the first one is shown initially.
        gallery: The images to show.
        decisions: What is said about precision, prediction sets, and unknown images.
        lines: The lines of `metrics.jsonl`.
        command: The command that reproduces the run.
    """
    return (
        page_environment()
        .get_template("run.html")
        .render(
            info=info,
            name=name,
            frozen=describe_freeze(info["freeze"]),
            ancestry=[_sentence(text) for text in (describe_parents(info), describe_forgetting(info)) if text],
            splits=[_split_context(split) for split in splits],
            settings=_settings(info),
            mapped_vectors=gallery.mapped_vectors,
            command=command,
            decisions=decisions,
            choice=describe_depth_choice(info),
            depth_name=depth_name,
            learning=info["learning_curve"],
            forecast=_sentence(describe_forecast(info) or ""),
            content=_script_data(info, splits, gallery, lines) | {"decisions": asdict(decisions)},
            sheet=base64.b64encode(gallery.overview.sheet.content).decode(),
            style=read_asset("run.css"),
            script=read_asset("run_training.js") + read_asset("run.js"),
            chart=read_asset("assets/chart.umd.min.js"),
        )
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _not_again(split: EvaluatedSplit) -> str:
    """Return how the images were held out, unless the name of the split is all there is to it."""
    method = describe_method(split.metrics)
    return "" if method == split.name.lower() else method


def _split_context(split: EvaluatedSplit) -> dict[str, Any]:
    """Return the template's values for a split: its metrics, the classes in its matrix, and the top confusions."""
    confusion = np.array(split.metrics["confusion"])
    wrong = confusion - np.diag(confusion.diagonal())
    mixed = wrong.sum(axis=0) + wrong.sum(axis=1)
    most = np.argsort(-mixed, kind="stable")[:MATRIX_CLASSES]
    confused = set(most[mixed[most] > 0].tolist()) if len(mixed) > MATRIX_CLASSES else set(range(len(mixed)))
    order = reading_order(split.metrics["per_class"])
    truths, predictions = np.nonzero(wrong)
    largest = np.argsort(-wrong[truths, predictions], kind="stable")[:LISTED_CONFUSIONS]
    pairs = [
        {
            "truth": truth,
            "predicted": predicted,
            "images": int(wrong[truth, predicted]),
            "of": int(confusion[truth].sum()),
        }
        for truth, predicted in zip(truths[largest].tolist(), predictions[largest].tolist(), strict=True)
    ]
    return {
        "name": split.name,
        "title": ", ".join(filter(None, [split.name, _not_again(split)])),
        "notes": [
            *describe_groups(split.metrics),
            *filter(None, [describe_unlabeled(split.metrics), describe_near_copies(split.metrics)]),
        ],
        "metrics": split.metrics | {"per_class": in_reading_order(split.metrics["per_class"])},
        "wrong": int(wrong.sum()),
        "shown": [index for index in order if index in confused],
        "pairs": pairs,
    }


def _settings(info: dict[str, Any]) -> dict[str, Any]:
    """Return all settings, the values that were chosen automatically, and the versions."""
    preprocessing = info["preprocessing"]
    return {
        **{name: _as_text(value) for name, value in info["settings"].items()},
        "input": f"{preprocessing['height']} x {preprocessing['width']} pixels, {preprocessing['fit']}",
        "device": f"{info['device']}, {info['precision']}, {info['engine']}",
        "temperature": f"{info['temperature']:.4g}",
        **(info["training"] or {}).get("recipe", {}),
        "seconds": ", ".join(f"{name} {value:.1f}" for name, value in info["seconds"].items()),
        **info["versions"],
    }


def _as_text(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_as_text(part)}" for name, part in value.items())
    return "default" if value is None else ("no", "yes")[value] if isinstance(value, bool) else value


def _script_data(
    info: dict[str, Any],
    splits: Sequence[EvaluatedSplit],
    gallery: ReportGallery,
    lines: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return the data for the page's script."""
    positions = gallery.overview.positions.round(3).tolist()
    return {
        "classes": info["classes"],
        "order": reading_order(info["classes"]),
        "root": info["data"]["root"],
        "sheet": {"columns": gallery.overview.sheet.columns},
        "splits": [
            {
                "name": split.name,
                "images": split.metrics["images"],
                "confusion": split.metrics["confusion"],
                "reliability": split.metrics["reliability"],
                "uncalibrated": split.metrics["uncalibrated"]["reliability"],
            }
            for split in splits
        ],
        "images": [
            [
                *(image.split, image.truth, image.predicted, x, y, image.path),
                [[label, round(share, 4)] for label, share in image.top],
                image.novelty,
            ]
            for image, (x, y) in zip(gallery.images, positions, strict=True)
        ],
        "curves": _epoch_curves(lines) if info["training"] else _l2_curve(lines),
        "depths": _depths(info),
        "learning": info["learning_curve"],
    }


def _depths(info: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the depths that were tried, if there are several."""
    training = info["training"]
    if not training or len(training["tried"]) < 2:
        return []
    return [
        {"name": depth_name(row, info["freeze"]["of"]), "kept": number == training["best"]}
        | {name: row[name] for name in ("share", "accuracy", "error")}
        for number, row in enumerate(training["tried"])
    ]


def _epoch_curves(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the losses and accuracies of all epochs; a new depth starts where epochs start over at 1."""
    points = []
    depth = 0
    for x, line in enumerate(lines, start=1):
        depth += line["epoch"] == 1
        points.append(
            {
                "x": x,
                "depth": depth,
                "title": f"frozen up to layer {line['layer']}, "
                + (f"fold {line['fold']}, " if line.get("fold") else "")
                + f"epoch {line['epoch']}",
                "train": line["train_loss"],
                "loss": line["validation_loss"],
                "accuracy": line["validation_accuracy"],
            }
        )
    return {"kind": "epochs", "points": points}


def _l2_curve(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return loss and accuracy for each L2 strength, in ascending order."""
    points = [
        {
            "x": line["l2"],
            "depth": 0,
            "title": f"L2 {line['l2']:.3g}",
            "loss": line["loss"],
            "accuracy": line["accuracy"],
        }
        for line in lines
    ]
    return {"kind": "sweep", "points": sorted(points, key=lambda point: point["x"])}
