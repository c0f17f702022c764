"""The recipe of a tail's training: the measured defaults (see benchmarks/README.md) and the user's choices.

The learning rate of a tail is decided here and nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tlcli.settings.augmentation import Augmentation
from tlcli.training.head.class_weights import ClassWeighting

EPOCHS = 8
MIN_STEPS = 300
"""Minimum number of steps with the default number of epochs: weights need steps, however few the images are."""
MAX_STRETCH = 5.0
"""Largest factor by which the default number of epochs is multiplied to reach `MIN_STEPS`."""
EPOCHS_FROM_SCRATCH = 40
BUDGET = 4
"""Default budget of `--freeze auto`, in epochs of the whole network."""
FOLDS_BUDGET = 7
"""The same if depths are compared on folds, each of which is trained."""
EPOCHS_EACH = 4
"""Maximum for each depth of `--freeze auto`. More epochs overfit short tails, and shallower cuts start from these."""
REFIT_SHARE = 0.25
"""Epochs for which the kept depth of `--freeze auto` is trained on all images, as a share of its epochs before."""
BATCH_SIZE = 32
LEARNING_RATE = 1e-3
LEARNING_RATE_FROM_SCRATCH = 2e-3
DEPTH_DECAY = 0.5
"""Ratio of the learning rates of a depth of `--freeze auto` and the one before: it starts from better weights."""
WEIGHT_DECAY = 0.05
LAYER_DECAY = 0.9
LABEL_SMOOTHING = 0.1
WARMUP = 0.1
CLIP = 1.0


@dataclass(frozen=True, kw_only=True)
class TailOptions:
    """What the user chose for the training of later layers. None leaves the choice to the recipe."""

    freeze: str
    """`auto`, `none`, or the number or name of a layer."""
    pretrained: bool
    """Whether the network starts from pretrained weights."""
    epochs: int | None
    """Training epochs; with `--freeze auto` the budget, in epochs of the whole network."""
    learning_rate: float | None
    weight_decay: float | None
    patience: int | None
    batch_size: int | None
    precision: str
    """`auto`, `fp32`, `bf16` or `fp16`."""
    augmentation: Augmentation | None
    """None uses `default_augmentation`, except for short tails of `--freeze auto`, which get none."""
    default_augmentation: Augmentation
    views: int | None
    """Augmented views of each image to cache; None streams a new view in every epoch."""
    weighting: ClassWeighting
    """The weights of the classes."""
    chosen_validation: bool
    """Whether the user or DATA says which images to validate on."""
    refit: bool
    """Train on the validation images as well in the end."""
    seed: int
    deadline: float | None
    """The `time.monotonic()` at which training ends; None without a budget."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a tail is trained."""

    epochs: int
    batch_size: int
    learning_rate: float
    """Peak learning rate of the head."""
    weight_decay: float
    layer_decay: float
    """Ratio of the learning rates of a layer and the one after it."""
    label_smoothing: float
    """Share of the target that is spread over all classes (Szegedy et al. 2016)."""
    warmup: float
    """Share of all steps until the learning rate reaches its peak."""
    clip: float
    """Largest norm of the gradient."""
    fixed_statistics: bool
    """Whether BatchNorm keeps normalizing by its pretrained statistics, as in prediction."""
    patience: int | None
    """Stop after this many epochs without a lower validation loss; None trains all epochs."""
    seed: int
    first_epoch: int = 0
    """Epochs that other depths took before: views, order and dropout continue from there."""
    precision: str
    """`fp32`, or the autocast type `bf16` or `fp16`."""
    deadline: float | None = None
    """The `time.monotonic()` after which no step begins."""


def epoch_stretch(images: int, batch_size: int | None) -> float:
    """Return the multiple of the default epochs that is needed to reach `MIN_STEPS`, from 1 to `MAX_STRETCH`."""
    steps_per_epoch = math.ceil(images / (batch_size or BATCH_SIZE))
    return min(MAX_STRETCH, max(1.0, MIN_STEPS / (EPOCHS * steps_per_epoch)))


def make_recipe(options: TailOptions, *, epochs: int, precision: str, depth: int = 0, first_epoch: int = 0) -> Recipe:
    """Combine the measured defaults with the user's choices.

    Args:
        options: What the user chose; None in it takes the measured default.
        epochs: Training epochs of this tail. The user's `options.epochs` are a budget with `--freeze auto`.
        precision: `fp32`, `bf16`, or `fp16`, from `training_precision`.
        depth: Number of depths that `--freeze auto` trained before this one.
        first_epoch: Number of epochs that those depths took.
    """
    pretrained = options.pretrained
    learning_rate = options.learning_rate or (LEARNING_RATE if pretrained else LEARNING_RATE_FROM_SCRATCH)
    return Recipe(
        epochs=epochs,
        batch_size=options.batch_size or BATCH_SIZE,
        learning_rate=learning_rate * DEPTH_DECAY**depth,
        weight_decay=WEIGHT_DECAY if options.weight_decay is None else options.weight_decay,
        layer_decay=LAYER_DECAY if pretrained else 1.0,
        label_smoothing=LABEL_SMOOTHING,
        warmup=WARMUP,
        clip=CLIP,
        fixed_statistics=pretrained,
        patience=options.patience,
        seed=options.seed,
        first_epoch=first_epoch,
        precision=precision,
        deadline=options.deadline,
    )
