"""Training a tail: epochs over features (or images) until the validation loss is at its best.

What a step does depends on the seed and the step's number alone, so that training goes on from a saved state as if it
had never stopped.

Shapes: B images of a batch, k classes, M validation images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlcli import processes
from tlcli.errors import ArtifactError, DataError
from tlcli.interrupts import defer_interrupts
from tlcli.training.tail.batches import Source, batches_of, to_device
from tlcli.training.tail.gradients import Gradients, SharedGradients
from tlcli.training.tail.optimizer import make_optimizer, schedule, set_learning_rate
from tlcli.training.tail.precision import depthwise_in_fp32
from tlcli.training.tail.recipe import Recipe
from tlcli.training.tail.validation import Judgment, judge, logits_of

SMALLEST_SCALE = 1e-3
"""A loss scale that float16 has fallen to for good: the gradients are no numbers at any scale."""


class _NotFinite(Exception):
    """The loss or a gradient was not a number; the weights are as before the step. Its text is where."""


@dataclass(kw_only=True)
class State:
    """How far training is. Whatever isn't a tensor can be written as JSON."""

    epoch: int = 0
    step: int = 0
    """Of this epoch."""
    loss: float = 0.0
    """Sum over the images of this epoch."""
    images: int = 0
    """In this epoch."""
    seconds: float = 0.0
    waited: float = 0.0
    best_epoch: int = -1
    """-1 is the state before the first epoch."""
    best_loss: float = float("inf")
    lines: list[dict[str, Any]] = field(default_factory=list)
    """One for each finished epoch."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


class TailTrainer:
    """Trains a tail in place.

    Args:
        network: The whole network, for the names of its parameters; those of the prefix need no gradient.
        tail: features to logits [B, k], on the device.
        train: Batches to learn from.
        labels: int64 [N], by row.
        validation: Batches to judge by.
        validation_labels: int64 [M].
        log_prior: float [k], where classes are balanced: added to the logits in training, so that they learn what is
            beyond the classes' frequencies (Menon et al. 2021, "Long-tail learning via logit adjustment").
        recipe: How.
        device: Where.
        compiled: Whether to compile the tail's training pass.
        warn: Told where it can't be compiled, and where batches have to be taken in parts.
    """

    def __init__(
        self,
        network: nn.Module,
        tail: nn.Module,
        *,
        train: Source,
        labels: Tensor,
        validation: Source,
        validation_labels: NDArray[np.integer],
        log_prior: NDArray[np.float64] | None,
        recipe: Recipe,
        device: torch.device,
        compiled: bool = False,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.state = State()
        self.recipe = recipe
        self._tail = tail.to(device).to(memory_format=torch.channels_last)
        self._optimizer = make_optimizer(network, weight_decay=recipe.weight_decay, layer_decay=recipe.layer_decay)
        self._parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self._train, self._labels = train, labels
        self._validation, self._validation_labels = validation, validation_labels
        self._log_prior = log_prior
        kind = Gradients if processes.size() == 1 else SharedGradients
        self._gradients = kind(
            self._tail,
            recipe=recipe,
            prior=None if log_prior is None else torch.from_numpy(log_prior).float().to(device),
            scaler=self._scaler,
            device=device,
            compiled=compiled and processes.size() == 1,  # what fails to compile in one, all could not do again
            warn=warn,
        )
        self._device = device
        self._best: dict[str, Tensor] = {}
        self.resumable = False
        """Whether `state` and `tensors()` belong together now: not before the first judgment, not within a step."""

    def steps_left(self) -> int:
        """Steps still to do, if no patience ends it before."""
        return (self.recipe.epochs - self.state.epoch) * len(self._batches(0)) - self.state.step

    def _batches(self, epoch: int) -> list[list[int]]:
        size, seed = self._gradients.batch_size, self.recipe.seed
        return batches_of(len(self._labels), size, seed=seed, epoch=epoch, least=self._gradients.least)

    def fit(
        self,
        *,
        save: Callable[[], None],
        stepped: Callable[[int], None],
        finished: Callable[[dict[str, Any]], None],
    ) -> tuple[Judgment, str | None]:
        """Train to the end, and leave the best weights in the tail.

        Args:
            save: Called after every step; may write `tensors()` and `state`.
            stepped: Told of each step.
            finished: Told each epoch's line.

        Returns:
            How good the best weights are on the validation images, and where the loss stopped being a number (None
            where it didn't).

        Raises:
            ArtifactError: the weights give no numbers to begin with.
        """
        if not self._best:
            self._keep_if_best(self.evaluate(), -1)
        if not self._best:
            raise ArtifactError("the network gives values that are not finite before any training. Check its weights.")
        self.resumable = True
        stopped = None
        try:
            while self.state.epoch < self.recipe.epochs and not self._stale():
                with depthwise_in_fp32(self._tail, self._device):
                    self._one_epoch(save, stepped)
                finished(self.state.lines[-1])
                save()
        except _NotFinite as error:
            stopped = str(error)
        self._restore(self._best)
        return self.evaluate(), stopped

    def _stale(self) -> bool:
        patience = self.recipe.patience
        return patience is not None and self.state.epoch - 1 - self.state.best_epoch >= patience

    def _one_epoch(self, save: Callable[[], None], stepped: Callable[[int], None]) -> None:
        state, recipe = self.state, self.recipe
        number = recipe.first_epoch + state.epoch
        batches = self._batches(number)
        steps, before_it = recipe.epochs * len(batches), state.epoch * len(batches)

        def rate_at(step: int) -> float:
            return recipe.learning_rate * schedule(step, steps, max(1, round(recipe.warmup * steps)))

        self._gradients.train_mode()
        before, waited, mark = state.seconds, self._train.waited - state.waited, time.monotonic()
        for rows, inputs in self._train.load([processes.share(batch) for batch in batches[state.step :]], number):
            step = before_it + state.step
            with defer_interrupts():
                self.resumable = False
                images = self._gradients.count(len(rows))
                if images > 1:  # the others' images vanished since the run began
                    self._step(rows, inputs, images, rate_at(step), number * 1_000_003 + state.step)
                state.step += 1
                self.resumable = True
            state.seconds = before + time.monotonic() - mark
            state.waited = self._train.waited - waited
            stepped(1)
            save()
        self._gradients.settle()
        judgment = self.evaluate()
        with defer_interrupts():
            self._end_epoch(judgment, rate_at(before_it + len(batches) - 1))

    def _end_epoch(self, judgment: Judgment, rate: float) -> None:
        state = self.state
        state.lines.append(
            {
                "epoch": state.epoch + 1,
                "train_loss": state.loss / max(1, state.images),
                "validation_loss": judgment.loss,
                "validation_accuracy": judgment.accuracy,
                "learning_rate": rate,
                "pictures": state.images,
                "seconds": round(state.seconds, 3),
                "waited": round(state.waited / max(state.seconds, 1e-9), 4),
            }
        )
        self._keep_if_best(judgment, state.epoch)
        state.epoch += 1
        state.step, state.loss, state.images, state.seconds, state.waited = 0, 0.0, 0, 0.0, 0.0

    def _step(self, rows: Tensor, inputs: Tensor, images: int, rate: float, step: int) -> None:
        labels, inputs = self._labels[rows].to(self._device, non_blocking=True), to_device(inputs, self._device)
        value = self._gradients.of(inputs, labels, images, step)
        where = f"epoch {self.state.epoch + 1}, step {self.state.step + 1}"
        if not np.isfinite(value):
            raise _NotFinite(where)
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.recipe.clip)
        if not self._scaler.is_enabled() and not torch.isfinite(norm):  # the scaler lowers its scale and goes on
            raise _NotFinite(where)
        set_learning_rate(self._optimizer, rate)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._scaler.is_enabled() and self._scaler.get_scale() < SMALLEST_SCALE:
            raise _NotFinite(where)
        self.state.loss += value * images
        self.state.images += images

    def evaluate(self) -> Judgment:
        """Judge the weights that are in the tail on the validation images, as prediction will.

        Raises:
            DataError: some can't be read any more; epochs that were judged by others can't be compared.
        """
        count = len(self._validation_labels)
        rows, logits = logits_of(self._tail, self._validation, count, self._device)
        if lost := count - len(rows):
            raise DataError(
                f"{lost:,} of {count:,} validation images changed or vanished since the run began. Put them back and "
                "go on with --resume, or start again with --overwrite for what is there now."
            )
        return processes.of_first(lambda: judge(logits, self._validation_labels, self._log_prior))

    def _keep_if_best(self, judgment: Judgment, epoch: int) -> None:
        if judgment.loss < self.state.best_loss:
            self.state.best_loss, self.state.best_epoch = judgment.loss, epoch
            self._best = {name: tensor.detach().cpu().clone() for name, tensor in self._tail.state_dict().items()}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that training depends on from here, by name."""
        found = {f"best.{name}": tensor for name, tensor in self._best.items()}
        found |= {f"tail.{name}": tensor for name, tensor in self._tail.state_dict().items()}
        for index, values in self._optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
        found |= {f"scaler.{name}": torch.tensor(value) for name, value in self._scaler.state_dict().items()}
        return found

    def load(self, state: State, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state` and `tensors()` were."""
        self.state = state
        self._best = _below("best.", tensors)
        self._restore(_below("tail.", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below("optimizer.", tensors).items():
            index, key = name.split(".")
            # The fused kernel takes for granted that moments lie in memory as their parameter does.
            like = self._parameters[int(index)] if tensor.ndim else tensor
            moments.setdefault(int(index), {})[key] = torch.empty_like(like).copy_(tensor)
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})
        if scaler := _below("scaler.", tensors):
            self._scaler.load_state_dict({name: tensor.item() for name, tensor in scaler.items()})

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self._tail.load_state_dict(tensors, strict=True)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
