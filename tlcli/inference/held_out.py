"""Describe in words how evaluated images were held out, from the metrics of a run. Torch-free."""

from __future__ import annotations

import shlex
from typing import Any

from tlcli.datasets.descriptions import count_groups

LARGE_DIFFERENCE = 0.03
"""Difference of two accuracies that needs an explanation."""
TOGETHER = ", similar images kept together"


def describe_method(metrics: dict[str, Any]) -> str:
    """Return how the images were held out, such as `out of fold, similar images kept together`.

    Args:
        metrics: `validation` of `run.json`; `test` gives an empty string.
    """
    method, groups = metrics.get("method"), metrics.get("groups")
    if method is None:
        return ""
    if method == "holdout":
        return "validation" if groups is None else f"held out{TOGETHER}"
    return "out of fold" if groups is None else f"out of fold{TOGETHER}"


def describe_groups(metrics: dict[str, Any]) -> list[str]:
    """Return sentences on the groups of similar images, and on what folds of single images would have given."""
    groups = metrics.get("groups")
    if not groups or not groups["groups"]:
        return []
    single = groups["single_image_accuracy"]
    line = count_groups(groups["groups"], groups["largest"])
    if single is None:
        return [f"{line}."]
    lines = [f"{line}; single images would have given {100 * single:.1f} %."]
    if single - metrics["accuracy"] >= LARGE_DIFFERENCE:
        lines.append(
            "Folds of single images are evaluated on near copies of training images, which overstates the accuracy on "
            "new objects."
        )
    if groups["group_by"]:
        lines.append(f"File names suggest the groups of --group-by {shlex.quote(groups['group_by'])}.")
    return lines


def describe_near_copies(metrics: dict[str, Any]) -> str | None:
    """Return a warning if images that DATA holds out are near copies of training images."""
    found = metrics.get("near_copies")
    if not found:
        return None
    without = found["accuracy_without"]
    images = f"{found['images']:,} of {metrics['images']:,} images are near copies of training images"
    return f"{images}. Accuracy without them: {'-' if without is None else f'{100 * without:.1f} %'}"


def describe_unlabeled(metrics: dict[str, Any]) -> str | None:
    """Return what unlabeled images were worth, from `validation` of `run.json`; None if there were none."""
    found = metrics.get("unlabeled")
    if not found:
        return None
    images = f"{found['images']:,} unlabeled images"
    loss, loss_without, accuracy = found["loss"], found["loss_without"], 100 * found["accuracy_without"]
    if loss is None:
        return f"{images} were not used: too few labels to tell whether they help. Label two or more images per class."
    if not found["used"]:
        losses = f"{loss:.3f} instead of {loss_without:.3f}"
        return f"{images} were not used: with them, the loss on held-out images is {losses}."
    used = f"{found['used']:,} of {images} were used, with the labels of their neighbors"
    return f"{used}. Without them: {accuracy:.1f} %, loss {loss_without:.3f} instead of {loss:.3f}."
