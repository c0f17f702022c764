"""The training loop of a tail: epochs over features (or images), keeping the weights with the lowest validation loss.

Without validation images, the last weights are kept.

A step depends on nothing but the seed and its number, so that a training resumed from a saved state continues as if it
had never been interrupted.

Shapes: B images of a batch, k classes, M validation images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlcli import processes
from tlcli.errors import ArtifactError, DataError
from tlcli.interrupts import defer_interrupts
from tlcli.training.tail.batches import Source, batches_of, to_device
from tlcli.training.tail.distributed import gradients_class, predict_together, validate_together
from tlcli.training.tail.optimizer import make_optimizer, schedule, set_learning_rate
from tlcli.training.tail.recipe import Recipe
from tlcli.training.tail.validation import ValidationResult

SMALLEST_SCALE = 1e-3
"""If float16's loss scale falls below this, gradients are NaN or infinite at any scale."""


class _NotFinite(Exception):
    """The loss or a gradient is NaN or infinite. The weights are those before the step; the message is where."""


@dataclass(kw_only=True)
class TrainingState:
    """The state of training without its tensors, as JSON-serializable values."""

    epoch: int = 0
    step: int = 0
    """Steps done in this epoch."""
    loss: float = 0.0
    """Sum over the images of this epoch."""
    images: int = 0
    """Images seen in this epoch."""
    seconds: float = 0.0
    waited: float = 0.0
    best_epoch: int = -1
    """-1 is the state before the first epoch."""
    best_loss: float = float("inf")
    lines: list[dict[str, Any]] = field(default_factory=list)
    """One for each finished epoch."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Batches and labels of N training and M validation images."""

    train: Source
    labels: Tensor
    """int64 [N]."""
    validation: Source | None
    """None without validation images."""
    validation_labels: NDArray[np.integer]
    """int64 [M]."""
    log_prior: NDArray[np.float64] | None
    """float [k] if classes are weighted: added to the logits in training, so that they learn what goes beyond the
    class frequencies (Menon et al. 2021, "Long-tail learning via logit adjustment")."""


class TailTrainer:
    """Trains a tail in place.

    Args:
        network: The whole network, for the names of its parameters. Those of the prefix need no gradient.
        tail: Features to logits [B, k].
        data: What to train and validate on.
        recipe: Epochs, learning rate, and everything else that steers the loop.
        device: Where to train; the tail is moved there.
        compiled: Whether to compile the tail's training pass.
        warn: Called if compilation fails, or if batches must be split to fit into memory.
    """

    def __init__(
        self,
        network: nn.Module,
        tail: nn.Module,
        data: TrainingData,
        *,
        recipe: Recipe,
        device: torch.device,
        compiled: bool = False,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.state = TrainingState()
        self.recipe = recipe
        self._data = data
        self._tail = tail.to(device).to(memory_format=torch.channels_last)
        self._optimizer = make_optimizer(network, weight_decay=recipe.weight_decay, layer_decay=recipe.layer_decay)
        self._parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        prior = None if data.log_prior is None else torch.from_numpy(data.log_prior).float().to(device)
        self._gradients = gradients_class()(
            self._tail, recipe=recipe, prior=prior, scaler=self._scaler, device=device, compiled=compiled, warn=warn
        )
        self._device = device
        self.timed_out = False
        """Whether the deadline ended training."""
        self._best: dict[str, Tensor] = {}
        self.resumable = False
        """Whether `state` and `tensors()` are consistent now: not before the first validation, not within a step."""

    def steps_left(self) -> int:
        """Return the number of remaining steps, unless `patience` ends training early."""
        return (self.recipe.epochs - self.state.epoch) * len(self._batches(0)) - self.state.step

    def _batches(self, epoch: int) -> list[list[int]]:
        size, seed = self._gradients.batch_size, self.recipe.seed
        return batches_of(len(self._data.labels), size, seed=seed, epoch=epoch, least=self._gradients.least)

    def fit(
        self,
        *,
        save: Callable[[], None],
        on_step: Callable[[int], None],
        on_epoch: Callable[[dict[str, Any]], None],
    ) -> tuple[ValidationResult | None, str | None]:
        """Train to the end, and leave the best weights in the tail.

        Args:
            save: Called after every step; may save `tensors()` and `state`.
            on_step: Called with 1 after every step.
            on_epoch: Called with the line of each epoch.

        Returns:
            The validation result of the best weights (None without validation images), and where the loss became NaN
            or infinite (None if it never did).

        Raises:
            ArtifactError: the network gives NaN or infinite logits before any training.
        """
        if self._data.validation is not None and not self._best:
            self._keep_if_best(self.evaluate(), -1)
            if not self._best:
                raise ArtifactError("the network gives NaN or infinite logits before any training. Check its weights.")
        self.resumable = True
        stopped = None
        try:
            while self.state.epoch < self.recipe.epochs and not self._stale() and not self.timed_out:
                self._one_epoch(save, on_step)
                on_epoch(self.state.lines[-1])
                save()
        except _NotFinite as error:
            stopped = str(error)
        if self._best:
            self._restore(self._best)
        return self.evaluate(), stopped

    def _past_deadline(self) -> bool:
        deadline = self.recipe.deadline
        return deadline is not None and processes.from_first(lambda: time.monotonic() > deadline)

    def _stale(self) -> bool:
        patience = self.recipe.patience
        return patience is not None and self.state.epoch - 1 - self.state.best_epoch >= patience

    def _one_epoch(self, save: Callable[[], None], on_step: Callable[[int], None]) -> None:
        state, recipe = self.state, self.recipe
        number = recipe.first_epoch + state.epoch
        batches = self._batches(number)
        steps, before_it = recipe.epochs * len(batches), state.epoch * len(batches)

        def rate_at(step: int) -> float:
            return recipe.learning_rate * schedule(step, steps, max(1, round(recipe.warmup * steps)))

        self._gradients.train_mode()
        train = self._data.train
        before, waited, mark = state.seconds, train.waited - state.waited, time.monotonic()
        for rows, inputs in train.load([self._gradients.own_part(batch) for batch in batches[state.step :]], number):
            step = before_it + state.step
            with defer_interrupts():
                self.resumable = False
                images = self._gradients.total(len(rows))
                if images > 1:  # otherwise the other images vanished since the run began
                    self._step(rows, inputs, images, rate_at(step), number * 1_000_003 + state.step)
                state.step += 1
                self.resumable = True
            state.seconds = before + time.monotonic() - mark
            state.waited = train.waited - waited
            on_step(1)
            save()
            self.timed_out = step + 1 < steps and self._past_deadline()
            if self.timed_out:
                break
        self._gradients.synchronize_buffers()
        result = self.evaluate()
        with defer_interrupts():
            self._end_epoch(result, rate_at(before_it + len(batches) - 1))

    def _end_epoch(self, result: ValidationResult | None, rate: float) -> None:
        state = self.state
        state.lines.append(
            {
                "epoch": state.epoch + 1,
                "train_loss": state.loss / max(1, state.images),
                "validation_loss": result and result.loss,
                "validation_accuracy": result and result.accuracy,
                "learning_rate": rate,
                "pictures": state.images,
                "seconds": round(state.seconds, 3),
                "waited": round(state.waited / max(state.seconds, 1e-9), 4),
            }
        )
        self._keep_if_best(result, state.epoch)
        state.epoch += 1
        state.step, state.loss, state.images, state.seconds, state.waited = 0, 0.0, 0, 0.0, 0.0

    def _step(self, rows: Tensor, inputs: Tensor, images: int, rate: float, step: int) -> None:
        labels, inputs = self._data.labels[rows].to(self._device, non_blocking=True), to_device(inputs, self._device)
        value = self._gradients.backward(inputs, labels, images, step)
        where = f"epoch {self.state.epoch + 1}, step {self.state.step + 1}"
        if not np.isfinite(value):
            raise _NotFinite(where)
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.recipe.clip)
        if not self._scaler.is_enabled() and not torch.isfinite(norm):  # the scaler lowers its scale and continues
            raise _NotFinite(where)
        set_learning_rate(self._optimizer, rate)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._scaler.is_enabled() and self._scaler.get_scale() < SMALLEST_SCALE:
            raise _NotFinite(where)
        self.state.loss += value * images
        self.state.images += images

    def evaluate(self) -> ValidationResult | None:
        """Evaluate the tail's current weights on the validation images, as prediction does; None if there are none.

        Raises:
            DataError: some images cannot be read any more. Epochs validated on different images cannot be compared.
        """
        labels, source = self._data.validation_labels, self._data.validation
        if source is None:
            return None
        rows, logits = predict_together(self._tail, source, len(labels), self._device)
        if lost := len(labels) - len(rows):
            raise DataError(
                f"{lost:,} of {len(labels):,} validation images changed or vanished since the run began. Put them back "
                "and continue with --resume, or start again with --overwrite to train on the images that are there now."
            )
        return validate_together(logits, labels, self._data.log_prior)

    def _keep_if_best(self, result: ValidationResult | None, epoch: int) -> None:
        if result is not None and result.loss < self.state.best_loss:
            self.state.best_loss, self.state.best_epoch = result.loss, epoch
            self._best = {name: tensor.detach().cpu().clone() for name, tensor in self._tail.state_dict().items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors that the rest of the training depends on, by name."""
        found = {f"best.{name}": tensor for name, tensor in self._best.items()}
        found |= {f"tail.{name}": tensor for name, tensor in self._tail.state_dict().items()}
        for index, values in self._optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
        found |= {f"scaler.{name}": torch.tensor(value) for name, value in self._scaler.state_dict().items()}
        return found

    def load(self, state: TrainingState, tensors: dict[str, Tensor]) -> None:
        """Continue from a saved `state` and `tensors()`."""
        self.state = state
        self._best = _with_prefix("best.", tensors)
        self._restore(_with_prefix("tail.", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _with_prefix("optimizer.", tensors).items():
            index, key = name.split(".")
            # The fused kernel assumes that moments have the memory layout of their parameter.
            like = self._parameters[int(index)] if tensor.ndim else tensor
            moments.setdefault(int(index), {})[key] = torch.empty_like(like).copy_(tensor)
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})
        if scaler := _with_prefix("scaler.", tensors):
            self._scaler.load_state_dict({name: tensor.item() for name, tensor in scaler.items()})

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self._tail.load_state_dict(tensors, strict=True)


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
