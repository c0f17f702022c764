"""The recipe that tails are trained by, and what it is where the user chose nothing else: benchmarks/README.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tlcli.settings import TrainingSettings

EPOCHS = 8
STEPS = 300
"""At least, of a training with the default number of epochs: weights need steps, however few the images are."""
STRETCH = 5.0
"""How many times more epochs than usual few images may get for that."""
EPOCHS_FROM_SCRATCH = 40
BUDGET = 6
"""Of `--freeze auto`, in epochs of the whole network."""
EPOCHS_EACH = 4
"""At most, of each depth of `--freeze auto`: more overfit the short tails, and shallower ones start from that."""
BATCH_SIZE = 32
LEARNING_RATE = 1e-3
FROM_SCRATCH = 2e-3
"""Learning rate of a network with random weights."""
WEIGHT_DECAY = 0.05
LAYER_DECAY = 0.9
LABEL_SMOOTHING = 0.1
WARMUP = 0.1
CLIP = 1.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a tail is trained."""

    epochs: int
    batch_size: int
    learning_rate: float
    """The head's, at its peak."""
    weight_decay: float
    layer_decay: float
    """A layer learns this many times slower than the one after it."""
    label_smoothing: float
    """Share of the target that is spread over all classes (Szegedy et al. 2016)."""
    warmup: float
    """Share of all steps until the learning rate is at its peak."""
    clip: float
    """Largest norm of the gradient."""
    fixed_statistics: bool
    """Whether BatchNorm goes on normalizing by the statistics that the weights came with, as it does in prediction."""
    patience: int | None
    """Epochs without a better validation loss until it stops; None trains all epochs."""
    seed: int
    first_epoch: int = 0
    """Epochs that other depths took before: views, order and dropout go on from there."""
    precision: str
    """`fp32`, or the autocast type `bf16` or `fp16`."""


def stretch(images: int, batch_size: int | None) -> float:
    """How many times more epochs than usual it takes to make enough steps of so many images; at least 1."""
    an_epoch = math.ceil(images / (batch_size or BATCH_SIZE))
    return min(STRETCH, max(1.0, STEPS / (EPOCHS * an_epoch)))


def make_recipe(
    training: TrainingSettings,
    *,
    epochs: int,
    batch_size: int | None,
    seed: int,
    precision: str,
    pretrained: bool,
) -> Recipe:
    """The measured defaults, with what the user chose.

    Args:
        training: What the user chose.
        epochs: How many; the user's are a budget with `--freeze auto`.
        batch_size: The user's.
        seed: Of the order, dropout and stochastic depth.
        precision: From `training_precision`.
        pretrained: Whether the network starts from something; if not, all its layers learn equally fast.
    """
    return Recipe(
        epochs=epochs,
        batch_size=batch_size or BATCH_SIZE,
        learning_rate=training.learning_rate or (LEARNING_RATE if pretrained else FROM_SCRATCH),
        weight_decay=WEIGHT_DECAY if training.weight_decay is None else training.weight_decay,
        layer_decay=LAYER_DECAY if pretrained else 1.0,
        label_smoothing=LABEL_SMOOTHING,
        warmup=WARMUP,
        clip=CLIP,
        fixed_statistics=pretrained,
        patience=training.patience,
        seed=seed,
        precision=precision,
    )
