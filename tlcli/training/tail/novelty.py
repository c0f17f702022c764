"""Fit the novelty of a run with a trained tail, whose features before the head no cache holds.

Shapes: N images, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tlcli import processes
from tlcli.backbones.heads import HeadInput, head_modules
from tlcli.inference.novelty import Floats, Novelty
from tlcli.training.novelty import NoveltyRows, fit_novelty, novelty_rows
from tlcli.training.tail.fit import run_on_rows
from tlcli.training.tail.search_progress import SearchResult
from tlcli.training.tail.sources import TailData
from tlcli.training.tail.start import copied_weights


def fit_tail_novelty(data: TailData, result: SearchResult, held_out: Sequence[int]) -> Novelty | None:
    """Run the trained network on its training and held-out images, and fit their novelty. For all processes.

    Known scores come from the network that was evaluated on the held-out images: after a last training on all images,
    its distances to them are too short.

    Args:
        data: The images, and the network with its final weights.
        result: What the search found.
        held_out: Rows of the held-out images, in the order of the logits of `result`.

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
        network.report.detail("  images unlike the training images are not recognized: no vector enters the head")
        return None
    network.report.note("Novelty   features of the training images, to recognize images unlike them")
    rows = novelty_rows(data.images, held_out, result.validation.logits, refitted=result.evaluated is not None)
    rows, final = _features(observed, data, rows)
    if result.evaluated is None:
        return processes.from_first(lambda: fit_novelty(rows, final))
    weights = copied_weights(network)
    model.load_state_dict(result.evaluated, strict=True)
    kept, features = _features(observed, data, rows)
    model.load_state_dict(weights, strict=True)
    if kept.all != rows.all:  # images were lost between the two passes
        return None
    return processes.from_first(lambda: fit_novelty(rows, features, final))


def _features(observed: HeadInput, data: TailData, rows: NoveltyRows) -> tuple[NoveltyRows, Floats]:
    """Return the rows whose images can still be read, and their features before the head: float32 [N, D]."""
    found, features = run_on_rows(observed, data, rows.all)
    return rows.only(set(found)), features
