"""Fit the novelty of a run with a trained tail, whose features before the head no cache holds.

Shapes: N images, D features.
"""

from __future__ import annotations

import numpy as np
import torch

from tlcli import processes
from tlcli.backbones.heads import HeadInput, head_modules
from tlcli.inference.novelty import Floats
from tlcli.training.novelty import FittedNovelty, NoveltyRows, fit_novelty, known_distances, novelty_from, novelty_rows
from tlcli.training.tail.fit import run_on_rows
from tlcli.training.tail.search_progress import SearchResult
from tlcli.training.tail.sources import TailData
from tlcli.training.tail.start import TailStart, copied_weights


def fit_tail_novelty(data: TailData, result: SearchResult, start: TailStart) -> FittedNovelty | None:
    """Run the trained network on its training and held-out images, and fit their novelty. For all processes.

    Known scores come from the networks that were evaluated on the held-out images: if the final one was trained on them
    as well, its distances are too short.

    Args:
        data: The images, and the network with its final weights.
        result: What the search found.
        start: Its held-out images and divisions.

    Returns:
        None if the input of the network's head is no vector, and where `fit_novelty` returns None.

    Raises:
        DataError: none of the images can be read again.
    """
    network = data.extractor.network
    model, heads = network.backbone.model, head_modules(network.backbone.model)
    if not heads or result.stopped:
        return None
    observed = HeadInput(data.extractor.cut.tail, heads).eval()
    with torch.inference_mode():
        example = observed(torch.zeros(1, *data.extractor.cut.feature_shape, device=network.device))
    if example.ndim != 2:
        return None
    network.report.note("Novelty   features of the training images, to recognize images unlike them")
    rows = novelty_rows(
        data.images, start.held_out, result.validation.logits, refitted=result.training["refit_epochs"] > 0
    )
    rows, final = _features(observed, data, rows)
    if not result.evaluated:
        return processes.from_first(lambda: fit_novelty(rows, final))
    weights, distances = copied_weights(network), np.full(len(rows.known), np.inf)
    for images, evaluated in zip(start.divisions, result.evaluated, strict=True):
        model.load_state_dict(evaluated, strict=True)
        part = rows.only(set(images.rows("train")), set(images.rows("validation")))
        part, features = _features(observed, data, part)
        distances[np.isin(rows.known, part.known)] = known_distances(part, features)
    model.load_state_dict(weights, strict=True)
    return processes.from_first(lambda: novelty_from(rows, distances, final))


def _features(observed: HeadInput, data: TailData, rows: NoveltyRows) -> tuple[NoveltyRows, Floats]:
    """Return the rows whose images can still be read, and their features before the head: float32 [N, D]."""
    found, features = run_on_rows(observed, data, rows.all)
    return rows.only(set(found), set(found)), features
