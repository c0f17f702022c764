"""What the training of later layers starts from: the exact head, fitted without the images that are held out.

Probing before fine-tuning follows Kumar et al. 2022, "Fine-tuning can distort pretrained features".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tlcli.backbones.heads import set_head
from tlcli.errors import UsageError
from tlcli.features.backbone import LoadedBackbone
from tlcli.features.extractor import FeatureExtractor, freeze_at
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.head.fit import fit_head
from tlcli.training.head.l2_selection import FittedHead
from tlcli.training.parent import Parent
from tlcli.training.tail.recipe import TailOptions
from tlcli.training.usable_images import UsableImages

FOLDS = 3
"""Folds in which `--freeze auto` compares depths on few images; each more costs another training at every depth."""
MIN_IMAGES = 40
"""Images from which on depths are compared on folds. The accuracy on fewer has a standard error of up to 8 points."""

Weights = dict[str, torch.Tensor]
"""The state of a network, by name, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class TailStart:
    """What the training of a tail starts from."""

    network: LoadedBackbone
    images: UsableImages
    divisions: list[UsableImages]
    """The images as they are trained and validated on: once, or once for each fold; none if there are too few.
    """
    weights: list[Weights]
    """The weights to start from, for each division."""
    weights_on_all: Weights
    """The weights to start from for training on all images, after a search on folds."""
    head: FittedHead | None
    """The exact head; None if training starts from a random one."""
    head_logits: NDArray[np.float32] | None
    """[M, k], of the validation images of all divisions."""

    @property
    def method(self) -> str:
        """How images are held out, for the metrics: `holdout`, or for example `3-fold`."""
        return f"{len(self.divisions)}-fold" if self.images.splits.cross_validated else "holdout"

    @property
    def held_out(self) -> list[int]:
        """The rows of the validation images of all divisions."""
        return [row for images in self.divisions for row in images.rows("validation")]


def head_extractor(network: LoadedBackbone, options: TailOptions, workers: int) -> FeatureExtractor | None:
    """Return the extractor of the features before the head, if an exact head is a useful start.

    Return None if it is not: with random weights, or if the input of the network's head is not a vector.
    """
    if not options.pretrained and options.freeze != "auto":
        return None
    try:
        return freeze_at(network, "all", workers=workers, batch_size=feature_batch_size(network, options.batch_size))
    except UsageError as error:
        network.report.detail(f"  {error.message}")
        return None


def fit_start(
    network: LoadedBackbone,
    extractor: FeatureExtractor | None,
    images: UsableImages,
    options: TailOptions,
    parent: Parent | None = None,
) -> TailStart:
    """Fit the exact head, and put it into the network at its calibrated scale.

    Without the temperature, the first epochs would be spent on shrinking the logits. At a given depth, the head of the
    run that training continues from replaces it, for the classes of that run, unless that head has seen images that
    are now held out: an epoch could not improve on what it remembers of them.
    """
    crossed = images.splits.cross_validated
    divisions = [images]
    if crossed:
        enough = len(images.rows("train")) >= MIN_IMAGES
        divisions = images.folds(FOLDS, seed=options.seed) if enough else []
    model = network.backbone.model
    if parent and (options.freeze == "auto" or parent.seen(images)):
        parent = None
    if extractor is None:
        if parent:
            parent.continue_head(model, train_log_prior(images, options.weighting))
        weights = [copied_weights(network)] * len(divisions)
        return TailStart(
            network=network,
            images=images,
            divisions=divisions,
            weights=weights,
            weights_on_all=copied_weights(network),
            head=None,
            head_logits=None,
        )
    fold_of = {row: fold for fold, division in enumerate(divisions) for row in division.rows("validation")}
    train = images.rows("train")
    folds = [fold_of.get(row, -1) for row in train] if crossed else None
    fitted = fit_head(extractor, images, weighting=options.weighting, seed=options.seed, folds=folds)
    network, temperature = extractor.network_as_run, fitted.temperature
    weights = []
    for head in [fitted.head, *fitted.fold_heads]:
        set_head(model, head.weight / temperature, head.bias / temperature)
        if parent:
            parent.continue_head(model, fitted.log_prior)
        weights.append(copied_weights(network))
    logits = fitted.logits / temperature
    if crossed:
        place = {row: number for number, row in enumerate(train)}
        logits = logits[[place[row] for row in fold_of]]
    return TailStart(
        network=network,
        images=images,
        divisions=divisions,
        weights=weights[1:] or weights,
        weights_on_all=weights[0],
        head=fitted,
        head_logits=logits,
    )


def feature_batch_size(network: LoadedBackbone, batch_size: int | None) -> int | None:
    """Return the batch size of the prefix while a tail is trained; None picks it by device.

    On a CPU the user's batch size is that of training steps only: a larger batch may take another kernel, which rounds
    differently, and features must be the same with and without a cache.
    """
    return None if network.device.type == "cpu" else batch_size


def copied_weights(network: LoadedBackbone) -> Weights:
    """Return a copy of all weights and buffers."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.backbone.model.state_dict().items()}


def train_log_prior(images: UsableImages, weighting: ClassWeighting) -> NDArray[np.float64] | None:
    """Return `ClassWeighting.log_prior` of the training images: float [k]."""
    return weighting.log_prior(torch.from_numpy(images.labels(images.rows("train"))), images.classes)
