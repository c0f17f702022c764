"""Train at one depth, or with `--freeze auto` at several, each starting from the last, and keep the best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tlcli.features.extractor import FeatureExtractor, describe_cut, freeze_at
from tlcli.training.tail.checkpoints import Checkpoints
from tlcli.training.tail.depths import CandidateDepth, candidate_depths, cut_at_depth
from tlcli.training.tail.distributed import latest_checkpoint
from tlcli.training.tail.epochs import EpochPlan
from tlcli.training.tail.fit import FittedTail, Saved, fit_tail
from tlcli.training.tail.loop import TailTrainer, TrainingState
from tlcli.training.tail.precision import training_precision
from tlcli.training.tail.probe import DepthCost, depth_cost
from tlcli.training.tail.recipe import REFIT_SHARE, Recipe, TailOptions, make_recipe
from tlcli.training.tail.search_progress import OnLines, SearchProgress, SearchResult, lines_at, tried_row
from tlcli.training.tail.sources import TailData
from tlcli.training.tail.start import TailStart, Weights, copied_weights, feature_batch_size, train_log_prior
from tlcli.training.tail.validation import ValidationResult, validate
from tlcli.training.usable_images import UsableImages


class DepthSearch:
    """Trains at the depth of the options; with `auto` at several, until one brings no significant gain.

    Args:
        start: Network, images and weights to start from.
        options: What the user chose, such as `freeze` and the epochs.
        workers: Number of decoder processes.
        checkpoints: Where the state is saved, and what to resume from; None in all processes but the first.
        on_lines: Called at the beginning and after each epoch.
    """

    def __init__(
        self,
        start: TailStart,
        options: TailOptions,
        *,
        workers: int,
        checkpoints: Checkpoints | None,
        on_lines: OnLines,
    ) -> None:
        self._start, self._network, self._options, self._workers = start, start.network, options, workers
        self._checkpoints, self._on_lines = checkpoints, on_lines
        self._auto, self._crossed = options.freeze == "auto", start.images.splits.cross_validated
        train = len(start.images.rows("train"))
        self._passes = sum(len(images.rows("train")) for images in start.divisions) / train
        """Epochs over all training images that one epoch on each division amounts to."""
        self._labels = start.images.labels(start.held_out)
        self._log_prior = train_log_prior(start.images, options.weighting)
        self._progress = SearchProgress()
        self._weights = list(start.weights)
        """For each division of the images, the weights of the last depth that was trained there."""
        self._logits: list[npt.NDArray[np.float32]] = []
        """Logits at the current depth on the validation images of the divisions that are done."""
        self._whole = start.weights_on_all
        """The weights of the last depth that was trained on all images."""
        self._best: Weights = {}
        """The weights of the best depth, on the first division, and its logits on the validation images of all."""
        self._evaluated: list[Weights] = []
        self._recipe: Recipe | None = None
        self._refit_epochs = 0
        self._feature_seconds = self._seconds = 0.0
        self._timed_out = False
        """Whether the budget ended the last training before its last epoch."""

    def run(self) -> SearchResult:
        """Train, and leave the best weights in the network.

        Raises:
            UsageError: the network cannot be cut there.
            DataError: images changed or vanished during training.
            MachineError: not enough disk space or memory.
        """
        candidates = candidate_depths(self._network, self._options.freeze)
        saved = self._resume()
        progress = self._progress
        self._on_lines(progress.lines)
        if saved is None and self._start.head_logits is not None and self._auto:
            self._record_head(self._start.head_logits)
        plan = self._epoch_plan(candidates)
        while progress.searching and progress.depth < len(candidates) and not self._ended:
            progress.epochs = progress.epochs or plan.epochs(progress.depth, progress.spent, self._repeat_seconds)
            if progress.epochs == 0:
                break
            self._train(candidates[progress.depth], progress.epochs, saved)
            saved, progress.epochs = None, 0
        progress.repeated = progress.repeated or 0
        trained = progress.tried[progress.best]["epochs"] > 0
        if trained and not self._timed_out and (self._crossed or (self._options.refit and not progress.stopped)):
            self._train_on_all(candidates, saved)
        return self._result()

    def _resume(self) -> Saved | None:
        """Take the search's progress from the last checkpoint; return the state of the depth it was at."""
        found = latest_checkpoint(self._checkpoints)
        if found is None:
            return None
        content, tensors = found
        self._progress = SearchProgress(**content["progress"])
        state = TrainingState(**content["state"])
        self._network.report.note(f"Resuming from a checkpoint: epoch {state.epoch + 1}, step {state.step}")
        parts: defaultdict[str, dict[str, torch.Tensor]] = defaultdict(dict)
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self._best, self._whole = parts["best"], parts["whole"] or self._whole
        self._weights = [parts[f"fold{number}"] or start for number, start in enumerate(self._weights)]
        self._evaluated = [parts[name] for n in range(len(self._weights)) if (name := f"evaluated{n}") in parts]
        self._logits = [parts["logits"][str(number)].numpy() for number in range(self._progress.division)]
        return state, parts["trainer"]

    @property
    def _repeat_seconds(self) -> float:
        """Estimated duration of training on all images what was trained on folds."""
        return sum(row["seconds"] for row in self._progress.tried) / self._passes if self._crossed else 0.0

    @property
    def _ended(self) -> bool:
        """Whether the loss became NaN or infinite, or time is up."""
        return self._progress.stopped is not None or self._timed_out

    def _epoch_plan(self, candidates: Sequence[CandidateDepth]) -> EpochPlan:
        images = self._start.images
        return EpochPlan(
            options=self._options,
            candidates=candidates,
            images=len(images.rows("train")),
            passes=self._passes,
            cross_validated=self._crossed,
            cost=self._cost,
            report=self._network.report,
        )

    def _cost(self, candidate: CandidateDepth) -> DepthCost:
        return depth_cost(*self._prepare(candidate, 1, self._start.images, self._progress.depth))

    def _train(self, candidate: CandidateDepth, epochs: int, saved: Saved | None) -> None:
        """Train at one depth, on each division of the images, and record it."""
        progress, divisions = self._progress, self._start.divisions
        for number in range(progress.division, len(divisions)):
            progress.division = number
            self._load(self._weights[number])
            extractor, fitted = self._fit(candidate, epochs, saved, divisions[number], depth=progress.depth)
            found = fitted.validation
            assert found is not None
            if fitted.timed_out and number + 1 < len(divisions):  # the depths could not be compared on the same images
                self._network.report.note("  the budget is used up before all folds are trained; the depth is left out")
                self._timed_out, self._logits = True, []
                return
            self._timed_out = fitted.timed_out
            saved, progress.stopped = None, progress.stopped or fitted.stopped
            self._weights[number] = copied_weights(self._network)
            self._logits.append(found.logits)
            progress.seconds += fitted.seconds
            if len(divisions) > 1:
                self._network.report.note(
                    f"  fold {number + 1}/{len(divisions)}  validation {100 * found.accuracy:.1f} %, "
                    f"loss {found.loss:.3f}  {fitted.seconds:.1f} s"
                )
        result = validate(np.concatenate(self._logits), self._labels, self._log_prior)
        self._record(tried_row(candidate.freeze, extractor, fitted, self._options.views, progress.seconds), result)
        progress.depth += 1
        progress.spent += fitted.share * len(fitted.lines) * self._passes
        progress.division, progress.seconds, self._logits = 0, 0.0, []

    def _train_on_all(self, candidates: Sequence[CandidateDepth], saved: Saved | None) -> None:
        """Train the kept depth on all images: after folds as on each of them, otherwise a few epochs more.

        The mean of the folds' weights, "model soups" (Wortsman et al. 2022), would cost no training, but can be no
        better than chance where each fold is good: on few images, they end far from each other.
        """
        progress, images = self._progress, self._start.images.all_in_train()
        trained = [row for row in progress.tried[: progress.best + 1] if row["epochs"]]
        steps = [(index, index, row["epochs"]) for index, row in enumerate(trained)]  # each starts from the one before
        if not self._crossed:
            steps = [(len(trained) - 1, progress.depth, max(1, round(REFIT_SHARE * trained[-1]["epochs"])))]
            self._evaluated = [{name: tensor for name, tensor in self._best.items() if name != "logits"}]
            self._whole = self._evaluated[0]
        self._network.report.note("  the kept depth is trained on all images, the held-out ones included")
        for index, depth, epochs in steps[progress.repeated :]:
            self._load(self._whole)
            _, fitted = self._fit(candidates[index], epochs, saved, images, depth=depth)
            saved, progress.stopped = None, progress.stopped or fitted.stopped
            if fitted.stopped or fitted.timed_out:
                self._network.report.note("  training on all images did not finish: the weights before it are kept")
                if not self._crossed:
                    self._evaluated = []  # the network has them
                return
            self._whole, progress.repeated = copied_weights(self._network), (progress.repeated or 0) + 1
        self._best |= self._whole
        self._refit_epochs = sum(epochs for _, _, epochs in steps)

    def _fit(
        self, candidate: CandidateDepth, epochs: int, saved: Saved | None, images: UsableImages, *, depth: int
    ) -> tuple[FeatureExtractor, FittedTail]:
        """Train at one depth on the training images of `images`."""
        options, network, progress = self._options, self._network, self._progress
        fold = progress.division + 1 if self._crossed and images.rows("validation") else None
        data, recipe = self._prepare(candidate, epochs, images, depth)
        self._recipe, extractor = recipe, data.extractor
        cut, augmentation = extractor.cut, extractor.augmentation
        if progress.division == 0:
            network.report.note(
                f"Training  {describe_cut(cut)}, {epochs} epochs, {recipe.batch_size} images per step, "
                f"{recipe.precision}, augmentation: {augmentation.describe() if augmentation else 'none'}"
            )
        fitted = fit_tail(
            data,
            recipe,
            weighting=options.weighting,
            save=self._save,
            on_epoch=lambda lines: self._on_lines([*progress.lines, *lines_at(cut.layer, fold, lines)]),
            verbose=not self._crossed,
            resume_from=saved,
        )
        self._network = extractor.network_as_run
        self._feature_seconds += fitted.feature_seconds
        self._seconds += fitted.seconds
        progress.lines += lines_at(cut.layer, fold, fitted.lines)
        return extractor, fitted

    def _prepare(
        self, candidate: CandidateDepth, epochs: int, images: UsableImages, depth: int
    ) -> tuple[TailData, Recipe]:
        """Cut the network at a depth, and decide how its tail is trained."""
        options, extractor = self._options, cut_at_depth(self._network, candidate, self._options, self._workers)
        precision = training_precision(options.precision, self._network.device)
        seen = len(self._progress.lines)  # so that no depth sees the views of another one again
        recipe = make_recipe(options, epochs=epochs, precision=precision, depth=depth, first_epoch=seen)
        data = TailData(extractor=extractor, images=images, batch_size=recipe.batch_size, views=options.views)
        return data, recipe

    def _save(self, trainer: TailTrainer, *, now: bool = False) -> None:
        if self._checkpoints is not None:
            self._checkpoints.save_if_due(lambda: self._content(trainer), now=now)

    def _content(self, trainer: TailTrainer) -> tuple[dict[str, Any], Weights]:
        """Return what a checkpoint contains, as JSON and as tensors."""
        weights = [*self._weights]
        weights[self._progress.division] = {}  # the trainer has those
        logits = {str(number): torch.from_numpy(logits) for number, logits in enumerate(self._logits)}
        parts = {"best": self._best, "logits": logits, "whole": self._whole if self._progress.repeated else {}}
        parts |= {f"fold{number}": part for number, part in enumerate(weights)}
        parts |= {f"evaluated{number}": part for number, part in enumerate(self._evaluated)}
        parts["trainer"] = trainer.tensors()
        tensors = {f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        return {"progress": asdict(self._progress), "state": asdict(trainer.state)}, tensors

    def _record_head(self, logits: npt.NDArray[np.float32]) -> None:
        """Add the exact head as the first depth."""
        extractor = freeze_at(self._network, "all", workers=self._workers)
        self._record(tried_row("all", extractor, None, None, 0.0), validate(logits, self._labels, self._log_prior))

    def _record(self, row: dict[str, Any], result: ValidationResult) -> None:
        """Add a depth to the table, and keep its weights if it is the best so far."""
        if self._progress.add(row, result):
            self._best = self._weights[0] | {"logits": torch.from_numpy(result.logits)}
            self._evaluated = list(self._weights) if len(self._weights) > 1 else []

    def _load(self, weights: Weights) -> None:
        self._network.backbone.model.load_state_dict(weights, strict=True)

    def _result(self) -> SearchResult:
        progress = self._progress
        best = progress.tried[progress.best]
        logits = self._best.pop("logits").numpy()
        self._load(self._best)
        extractor = freeze_at(
            self._network,
            best["freeze"],
            workers=self._workers,
            batch_size=feature_batch_size(self._network, self._options.batch_size),
        )
        return SearchResult(
            extractor=extractor,
            validation=validate(logits, self._labels, self._log_prior),
            lines=progress.lines,
            training={
                "tried": progress.tried,
                "best": progress.best,
                "folds": len(self._start.divisions) if self._crossed else None,
                "refit_epochs": self._refit_epochs,
                "stopped": progress.stopped,
                "recipe": asdict(replace(self._recipe, deadline=None)) if self._recipe else {},
            },
            log_prior=self._log_prior,
            stopped=progress.stopped,
            evaluated=self._evaluated,
            feature_seconds=self._feature_seconds,
            seconds=self._seconds,
        )
