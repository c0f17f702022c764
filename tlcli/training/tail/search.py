"""One depth of freezing, or several, each started from the last: what each trains, and which is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tlcli import processes
from tlcli.features.frozen import Frozen, describe_cut, freeze_at
from tlcli.features.network import Network
from tlcli.progress import Reporter
from tlcli.settings import FinetuneSettings
from tlcli.settings.augmentation import Augmentation, default_augmentation
from tlcli.training.tail.candidates import Candidate, candidates_for
from tlcli.training.tail.checkpoints import Checkpoints
from tlcli.training.tail.depths import AUGMENTED_FROM, PATIENCE, SLOWER, epochs_for, gain
from tlcli.training.tail.loop import State, TailTrainer
from tlcli.training.tail.precision import training_precision
from tlcli.training.tail.recipe import BUDGET, EPOCHS, EPOCHS_EACH, EPOCHS_FROM_SCRATCH, make_recipe, stretch
from tlcli.training.tail.train import TailResult, log_prior_of, train_tail
from tlcli.training.tail.validation import Judgment, judge
from tlcli.training.usable_images import UsableImages

Watch = Callable[[Sequence[dict[str, Any]]], None]
"""Told all lines of `metrics.jsonl` so far."""


@dataclass(kw_only=True)
class Progress:
    """How far the search is; goes into every checkpoint, as JSON."""

    stage: int = 0
    """Which candidate."""
    spent: float = 0.0
    """Epochs of the whole network."""
    tried: list[dict[str, Any]] = field(default_factory=list)
    """One for each depth that is done: freeze, layer, name, best_epoch, parameters, share, epochs, accuracy, error,
    loss, gain, gain_error, seconds, augmentation, views."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """One for each epoch of the depths that are done."""
    best: int = -1
    """Of `tried`: the lowest validation loss."""
    losses: list[float] = field(default_factory=list)
    """[M], on the validation images, of the last depth that was better by more than chance."""
    in_vain: int = 0
    """Depths in a row that were not."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The tail that was kept; its weights are in the network."""

    frozen: Frozen
    judgment: Judgment
    """On the validation images."""
    lines: list[dict[str, Any]]
    """One for each epoch, of all depths."""
    tried: list[dict[str, Any]]
    """See `Progress.tried`."""
    best: int
    """Of `tried`."""
    log_prior: npt.NDArray[np.float64] | None
    """[k], where classes were balanced."""
    recipe: dict[str, Any]
    """Of the last depth tried."""
    stopped: str | None
    """Where the loss was no longer a number; None where all went well."""
    feature_seconds: float
    seconds: float

    @property
    def temperature(self) -> float:
        """What logits are divided by before the softmax."""
        return self.judgment.temperature


def _at_depth(layer: int, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of `metrics.jsonl`, in which what JSON has no number for is None."""
    return [
        {"layer": layer} | {name: value if np.isfinite(value) else None for name, value in line.items()}
        for line in lines
    ]


class Search:
    """Trains at the depth of the settings; with `auto` at several, until two in a row are no better.

    Args:
        network: With the head that training starts from.
        images: To learn from, and to be judged on.
        settings: Of the run.
        report: Shown each epoch and depth.
        checkpoints: Where the state is saved, and what to go on from; None in processes but the first.
        watch: Told all lines of `metrics.jsonl` so far, after each epoch and to begin with.
    """

    def __init__(
        self,
        network: Network,
        images: UsableImages,
        settings: FinetuneSettings,
        report: Reporter,
        checkpoints: Checkpoints | None,
        watch: Watch,
    ) -> None:
        self._network, self._images, self._settings = network, images, settings
        self._report, self._checkpoints, self._watch = report, checkpoints, watch
        self._auto = settings.network.freeze == "auto"
        self._pretrained = settings.network.weights != "none"
        self._stretch = stretch(len(images.rows("train")), settings.compute.batch_size)
        self._labels = images.labels(images.rows("validation"))
        self._log_prior = log_prior_of(images) if settings.balance else None
        self._progress = Progress()
        self._kept: dict[str, torch.Tensor] = {}
        """The network at the best depth, and its logits on the validation images."""
        self._recipe: dict[str, Any] = {}
        self._feature_seconds = self._seconds = 0.0

    def run(self, head: npt.NDArray[np.float32] | None) -> Outcome:
        """Try, and leave the best in the network.

        Args:
            head: Logits [M, k] of the validation images with all but the head frozen; None where nobody tried that.

        Raises:
            UsageError: the network can't be cut there.
            DataError: images vanished meanwhile.
            MachineError: no room, or no memory.
        """
        candidates = candidates_for(self._network, self._settings.network.freeze)
        begun = self._begun()
        self._watch(self._progress.lines)
        if begun is None and head is not None and self._auto:
            self._enter_head(head)
        budget = self._settings.training.epochs or round(BUDGET * self._stretch)
        stopped = None
        while self._progress.stage < len(candidates) and self._progress.in_vain < PATIENCE and not stopped:
            epochs = self._epochs(candidates, budget)
            if epochs == 0:
                self._report.note(f"  the budget of {budget} full epochs is used up")
                break
            result = self._train(candidates[self._progress.stage], epochs, begun)
            stopped, begun = result.stopped, None
        return self._outcome(stopped)

    def _begun(self) -> tuple[State, dict[str, torch.Tensor]] | None:
        found = processes.of_first(lambda: self._checkpoints.latest() if self._checkpoints else None)
        if found is None:
            return None
        content, tensors = found
        self._progress = Progress(**content["progress"])
        self._kept = {name.removeprefix("kept."): t for name, t in tensors.items() if name.startswith("kept.")}
        state = State(**content["state"])
        self._report.note(f"Going on from a checkpoint: epoch {state.epoch + 1}, step {state.step}")
        return state, tensors

    def _epochs(self, candidates: Sequence[Candidate], budget: int) -> int:
        """Epochs for the depth that is next."""
        if not self._auto:
            usual = round(EPOCHS * self._stretch) if self._pretrained else EPOCHS_FROM_SCRATCH
            return self._settings.training.epochs or usual
        share, spent = candidates[self._progress.stage].share, self._progress.spent
        most = round(EPOCHS_EACH * self._stretch)
        return epochs_for(share, candidates=len(candidates), budget=budget, spent=spent, most=most)

    def _train(
        self, candidate: Candidate, epochs: int, begun: tuple[State, dict[str, torch.Tensor]] | None
    ) -> TailResult:
        settings, network, progress = self._settings, self._network, self._progress
        augmentation = self._augmentation(candidate)
        frozen = freeze_at(
            network, candidate.freeze, self._report, augmentation=augmentation, seed=settings.network.seed
        )
        recipe = make_recipe(
            settings.training,
            epochs=epochs,
            batch_size=settings.compute.batch_size,
            seed=settings.network.seed,
            precision=training_precision(settings.compute.precision, network.device),
            pretrained=self._pretrained,
        )
        recipe = replace(
            recipe,
            learning_rate=recipe.learning_rate * SLOWER**progress.stage,
            first_epoch=len(progress.lines),  # so that no depth sees the views of another one again
        )
        self._recipe = asdict(recipe)
        self._report.note(
            f"Training  {describe_cut(frozen.cut)}, {epochs} epochs of {recipe.batch_size} images a step, "
            f"{recipe.precision}, augmentation: {augmentation.describe() if augmentation else 'none'}"
        )

        def save(trainer: TailTrainer, *, now: bool = False) -> None:
            if self._checkpoints is not None:
                self._checkpoints.save_if_due(
                    lambda: (
                        {"progress": asdict(progress), "state": trainer.state.to_json()},
                        trainer.tensors() | {f"kept.{name}": tensor for name, tensor in self._kept.items()},
                    ),
                    now=now,
                )

        def finished(lines: list[dict[str, Any]]) -> None:
            self._watch([*progress.lines, *_at_depth(frozen.cut.layer, lines)])

        result = train_tail(
            frozen, self._images, recipe, settings, self._report, save=save, finished=finished, begun=begun
        )
        self._feature_seconds += result.feature_seconds
        self._seconds += result.seconds
        progress.stage += 1
        progress.spent += result.share * len(result.lines)
        cut = frozen.cut
        progress.lines += _at_depth(cut.layer, result.lines)
        self._enter(
            {
                "freeze": candidate.freeze,
                "layer": cut.layer,
                "name": cut.name,
                "parameters": result.parameters,
                "share": round(result.share, 4),
                "epochs": len(result.lines),
                "best_epoch": result.best_epoch,
                "seconds": round(result.seconds, 1),
                "augmentation": augmentation.to_json() if augmentation else None,
                "views": settings.training.views,
            },
            result.judgment,
        )
        return result

    def _augmentation(self, candidate: Candidate) -> Augmentation | None:
        settings = self._settings
        if settings.augmentation is not None:
            return settings.augmentation
        if self._auto and settings.training.views is None and candidate.share < AUGMENTED_FROM:
            return None
        chosen = default_augmentation(settings.network.freeze, settings.network.weights)
        return chosen if chosen.enabled else None

    def _enter_head(self, logits: npt.NDArray[np.float32]) -> None:
        frozen = freeze_at(self._network, "all", self._report)
        parameters = sum(parameter.numel() for parameter in frozen.cut.tail.parameters())
        row = {
            "freeze": "all",
            "layer": frozen.cut.layer,
            "name": frozen.cut.name,
            "parameters": parameters,
            "share": 0.0,
            "epochs": 0,
            "best_epoch": 0,
            "seconds": 0.0,
            "augmentation": None,
            "views": None,
        }
        self._enter(row, judge(logits, self._labels, self._log_prior))

    def _enter(self, row: dict[str, Any], judgment: Judgment) -> None:
        """Add a depth to the table, and keep its network if it is better than the best so far."""
        progress, tried = self._progress, self._progress.tried
        by = gain(np.array(progress.losses), judgment.losses) if tried else None
        accuracy, loss = judgment.accuracy, judgment.loss
        error = float(np.sqrt(accuracy * (1 - accuracy) / len(self._labels)))
        gained = {"gain": by.mean, "gain_error": by.error} if by else {"gain": None, "gain_error": None}
        if not tried or loss < tried[progress.best]["loss"]:
            progress.best = len(tried)
            state = self._network.backbone.model.state_dict()
            self._kept = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
            self._kept["logits"] = torch.from_numpy(judgment.logits)
        tried.append(row | {"accuracy": accuracy, "error": error, "loss": loss} | gained)
        if by is None or by.clear:
            progress.losses, progress.in_vain = judgment.losses.tolist(), 0
        else:
            progress.in_vain += 1

    def _outcome(self, stopped: str | None) -> Outcome:
        progress = self._progress
        kept = progress.tried[progress.best]
        logits = self._kept.pop("logits").numpy()
        self._network.backbone.model.load_state_dict(self._kept, strict=True)
        frozen = freeze_at(self._network, kept["freeze"], self._report)
        return Outcome(
            frozen=frozen,
            judgment=judge(logits, self._labels, self._log_prior),
            lines=progress.lines,
            tried=progress.tried,
            best=progress.best,
            log_prior=self._log_prior,
            recipe=self._recipe,
            stopped=stopped,
            feature_seconds=self._feature_seconds,
            seconds=self._seconds,
        )
