"""Measure how long training takes, on a few batches, before it begins."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tlcli import processes
from tlcli.features.extractor import FeatureExtractor
from tlcli.progress import OnlyDetails
from tlcli.training.tail.gradients import Gradients
from tlcli.training.tail.recipe import Recipe
from tlcli.training.tail.sources import TailData

STEPS = 2
STARTED, PROBED = 16, 64
"""Images whose features are computed: first some to start the processes, then some to measure."""
EVALUATION = 1 / 3
"""Time of predicting an image, relative to that of training on it."""


@dataclass(frozen=True, kw_only=True)
class DepthCost:
    """What training at a depth takes, in seconds."""

    once: float
    """For the cached features it trains on, and for the evaluation at the end."""
    epoch: float
    """For each epoch over all training images, with the validation that follows it."""


def depth_cost(data: TailData, recipe: Recipe) -> DepthCost:
    """Estimate what training at a depth takes. The features of a few images are computed and cached."""
    data = replace(data, extractor=data.extractor.reporting_to(OnlyDetails(data.extractor.network.report)))
    extractor, images = data.extractor, data.images
    step, size = training_step_seconds(extractor, recipe), recipe.batch_size
    train, held_out, test = (images.rows(split) for split in ("train", "validation", "test"))
    evaluated = EVALUATION * step / size
    plain = [*held_out, *test, *([] if extractor.augmented else train)]
    once = (len(train) + len(test)) * evaluated
    if extractor.cacheable:
        once += _seconds_per_image(data, plain) * len(plain)
    epoch = math.ceil(len(train) / size) * step + len(held_out) * evaluated
    if not extractor.cacheable or (extractor.augmented is not None and data.views is None):
        epoch += _streaming_seconds(data, train, size) * len(train)
    return DepthCost(once=once, epoch=epoch)


def _seconds_per_image(data: TailData, rows: Sequence[int]) -> float:
    """Return the time of the features of an image that the cache lacks; 0 if it has all of the first ones."""
    digests = data.images.digests(rows)
    store = data.extractor.plain
    own = [row for row, digest in zip(rows, digests, strict=True) if (digest, 0) not in store]
    missing = processes.from_first(lambda: own)  # all processes compute the same ones
    if not missing:
        return 0.0
    data.cache(missing[:STARTED], [0])
    started = time.monotonic()
    probed = missing[STARTED : STARTED + PROBED]
    data.cache(probed, [0])
    return len(missing) / len(rows) * (time.monotonic() - started) / max(1, len(probed))


def _streaming_seconds(data: TailData, rows: Sequence[int], size: int) -> float:
    """Return the time of an image that is decoded, augmented, and sent through the frozen layers."""
    batches = [rows[start : start + size] for start in range(0, len(rows), size)][: 1 + STEPS]
    with data.open(rows, augmented=True) as source:
        arrived = source.load(
            [range(start * size, start * size + len(batch)) for start, batch in enumerate(batches)], 0
        )
        next(iter(arrived))  # starts the processes
        started, count = time.monotonic(), 0
        for found, _ in arrived:
            count += len(found)
    return (time.monotonic() - started) / count if count else 0.0


def training_step_seconds(extractor: FeatureExtractor, recipe: Recipe) -> float:
    """Return the seconds of one training step of a tail on cached features, without changing its weights.

    Args:
        extractor: The cut network.
        recipe: Batch size, precision, and whether BatchNorm's statistics are fixed.
    """
    cut, device = extractor.cut, extractor.network.device
    tail = cut.tail.to(device).to(memory_format=torch.channels_last)
    buffers = {name: buffer.clone() for name, buffer in tail.named_buffers()}
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    gradients = Gradients(
        tail, recipe=recipe, prior=None, scaler=scaler, device=device, compiled=False, warn=lambda _: None
    )
    gradients.train_mode()
    inputs = torch.zeros(recipe.batch_size, *cut.feature_shape, device=device)
    labels = torch.zeros(recipe.batch_size, dtype=torch.int64, device=device)
    seconds = []
    for step in range(1 + STEPS):  # the first one allocates memory
        started = time.monotonic()
        gradients.backward(inputs, labels, recipe.batch_size, step)
        seconds.append(time.monotonic() - started)
    tail.eval().zero_grad(set_to_none=True)
    for name, buffer in tail.named_buffers():
        buffer.copy_(buffers[name])
    return min(seconds[1:])
