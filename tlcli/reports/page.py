"""report.html: one self-contained page about a run."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from tlcli.reports.overview import Overview

MATRIX = 30
"""Classes in the confusion matrix, at most."""
PAIRS = 12
"""Confusions that are listed, at most."""
LIKELIEST = 3
"""Classes shown for an image."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An image with a thumbnail."""

    part: int
    """Which of the parts it judged in."""
    truth: int
    said: int
    path: str
    """Below the data's root, or absolute."""
    likeliest: list[tuple[int, float]]
    """Labels with their probabilities, the likeliest first."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Images that judge a run: test, or validation."""

    name: str
    title: str
    metrics: dict[str, Any]
    """Of `Metrics.result`, and under `uncalibrated` what reliability was before the temperature."""


def run_page(
    info: dict[str, Any],
    *,
    name: str,
    parts: Sequence[Part],
    images: Sequence[Shown],
    overview: Overview,
    lines: Sequence[dict[str, Any]],
    mapped: str,
    command: str,
) -> str:
    """The page for a run.

    Args:
        info: The content of `run.json`, checksums aside.
        name: The run's name, for the title.
        parts: What judged it, the most telling first.
        images: Those with a thumbnail, N of them.
        overview: Their thumbnails, and places on the map.
        lines: Of `metrics.jsonl`.
        mapped: What the map is made of.
        command: Makes the run again.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tlcli", "reports"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.1f}\u00a0%"
    environment.filters["thousands"] = "{:,}".format
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment.get_template("run.html").render(
        info=info,
        name=name,
        frozen=_frozen(info["freeze"]),
        parts=[_part(part) for part in parts],
        settings=_settings(info),
        mapped=mapped,
        command=command,
        content=_content(info, parts, images, overview, lines),
        sheet=base64.b64encode(overview.sheet.content).decode(),
        style=_asset("run.css"),
        script=_asset("run.js"),
        chart=_asset("assets/chart.umd.min.js"),
    )


def _asset(name: str) -> Markup:
    """A file of ours, to go into the page as it is; but no browser is to look for its source map."""
    text = files("tlcli.reports").joinpath(name).read_text("utf8")
    return Markup(text.partition("//# sourceMappingURL")[0])


def _frozen(freeze: dict[str, Any]) -> str:
    if freeze["layer"] == freeze["of"]:
        return "frozen up to the head"
    return (
        f"frozen up to layer {freeze['layer']} of {freeze['of']} ({freeze['name']})"
        if freeze["layer"]
        else ("nothing frozen")
    )


def _part(part: Part) -> dict[str, Any]:
    """What the page says of a part: which classes are in the matrix, and what is confused most."""
    confusion = np.array(part.metrics["confusion"])
    wrong = confusion - np.diag(confusion.diagonal())
    mixed = wrong.sum(axis=0) + wrong.sum(axis=1)
    most = np.argsort(-mixed, kind="stable")[:MATRIX]
    shown = sorted(most[mixed[most] > 0].tolist()) if len(mixed) > MATRIX else list(range(len(mixed)))
    truths, saids = np.nonzero(wrong)
    order = np.argsort(-wrong[truths, saids], kind="stable")[:PAIRS]
    pairs = [
        {"truth": truth, "said": said, "images": int(wrong[truth, said]), "of": int(confusion[truth].sum())}
        for truth, said in zip(truths[order].tolist(), saids[order].tolist(), strict=True)
    ]
    return {
        "name": part.name,
        "title": part.title,
        "metrics": part.metrics,
        "wrong": int(wrong.sum()),
        "shown": shown,
        "pairs": pairs,
    }


def _settings(info: dict[str, Any]) -> dict[str, Any]:
    """Every setting, what was chosen by itself, and the versions."""
    preprocessing = info["preprocessing"]
    return {
        **{name: _worded(value) for name, value in info["settings"].items()},
        "input": f"{preprocessing['height']} x {preprocessing['width']} pixels, {preprocessing['fit']}",
        "device": f"{info['device']}, {info['precision']}, {info['engine']}",
        "temperature": f"{info['temperature']:.4g}",
        **(info["training"] or {}).get("recipe", {}),
        "seconds": ", ".join(f"{name} {value:.1f}" for name, value in info["seconds"].items()),
        **info["versions"],
    }


def _worded(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_worded(part)}" for name, part in value.items())
    return "default" if value is None else ("no", "yes")[value] if isinstance(value, bool) else value


def _content(
    info: dict[str, Any],
    parts: Sequence[Part],
    images: Sequence[Shown],
    overview: Overview,
    lines: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """What the page's script shows."""
    places = overview.places.round(3).tolist()
    return {
        "classes": info["classes"],
        "root": info["data"]["root"],
        "sheet": {"columns": overview.sheet.columns},
        "parts": [
            {
                "name": part.name,
                "images": part.metrics["images"],
                "confusion": part.metrics["confusion"],
                "reliability": part.metrics["reliability"],
                "uncalibrated": part.metrics["uncalibrated"]["reliability"],
            }
            for part in parts
        ],
        "images": [
            [shown.part, shown.truth, shown.said, x, y, shown.path, [[c, round(p, 4)] for c, p in shown.likeliest]]
            for shown, (x, y) in zip(images, places, strict=True)
        ],
        "curves": _epochs(lines) if info["training"] else _sweep(lines),
    }


def _epochs(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Losses and accuracies of every epoch; a new depth begins where epochs begin anew."""
    points = []
    depth = 0
    for x, line in enumerate(lines, start=1):
        depth += line["epoch"] == 1
        points.append(
            {
                "x": x,
                "depth": depth,
                "title": f"frozen up to layer {line['layer']}, epoch {line['epoch']}",
                "train": line["train_loss"],
                "loss": line["validation_loss"],
                "accuracy": line["validation_accuracy"],
            }
        )
    return {"kind": "epochs", "points": points}


def _sweep(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
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
