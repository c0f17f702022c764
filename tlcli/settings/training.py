"""Settings of the training of layers."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlcli.errors import UsageError
from tlcli.settings.checks import at_least
from tlcli.settings.common_options import VIEWS_OPTION
from tlcli.settings.options import LAYERS, Option


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the layers after the frozen ones are trained. `training.tail.recipe` chooses whatever is None."""

    epochs: int | None = field(
        default=None,
        metadata=Option(
            help="Training epochs. With --freeze auto, the budget of the whole search, in epochs of the whole network.",
            metavar="N",
            panel=LAYERS,
            unset="8, up to 40 with fewer than 1,200 images, 40 from random weights; budget 4 to 35",
        ),
    )
    learning_rate: float | None = field(
        default=None,
        metadata=Option(
            help="Peak learning rate of the head; earlier layers use lower ones.",
            metavar="LR",
            panel=LAYERS,
            unset="0.001; from random weights 0.002",
        ),
    )
    weight_decay: float | None = field(
        default=None,
        metadata=Option(
            help="Weight decay, except for biases and normalization layers.", metavar="WD", panel=LAYERS, unset="0.05"
        ),
    )
    patience: int | None = field(
        default=None,
        metadata=Option(
            help="Stop after this many epochs without a lower validation loss.",
            metavar="N",
            panel=LAYERS,
            unset="train all epochs",
        ),
    )
    views: int | None = field(default=None, metadata=VIEWS_OPTION)

    def __post_init__(self) -> None:
        for option, value in (("--epochs", self.epochs), ("--patience", self.patience), ("--views", self.views)):
            at_least(option, value, 1)
        if self.learning_rate is not None and not 0 < self.learning_rate <= 10:
            raise UsageError(f"--learning-rate is {self.learning_rate}; expected more than 0 and at most 10.")
        if self.weight_decay is not None and not 0 <= self.weight_decay <= 10:
            raise UsageError(f"--weight-decay is {self.weight_decay}; expected 0 to 10.")

    def tail_options(self) -> dict[str, float | None]:
        """Return the values, by option, that have no effect unless layers before the head are trained."""
        return {
            "--epochs": self.epochs,
            "--learning-rate": self.learning_rate,
            "--weight-decay": self.weight_decay,
            "--patience": self.patience,
        }
