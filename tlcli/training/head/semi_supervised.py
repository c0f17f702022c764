"""Fit the head again on unlabeled images as well, unless held-out images clearly speak against it.

Shapes: N labeled rows, U unlabeled images, D features, k classes, E evaluated images.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlcli.training.head.folds import fold_weightings, out_of_fold_logits
from tlcli.training.head.l2_selection import FittedHead, HeadOptions, UnlabeledUse
from tlcli.training.head.pseudo_labels import HELD_OUT, UNLABELED, NeighborGraph, pseudo_labels
from tlcli.training.head.softmax_regression import HeadFits, SoftmaxHead
from tlcli.training.head.sweep import held_out_losses
from tlcli.training.head.threads import map_fits, one_thread_each


class SemiSupervisedFit:
    """Fits heads on labeled rows and on unlabeled images, whose labels are those that the labeled rows suggest.

    Args:
        train: Features float32 [N, D] and labels int64 [N].
        unlabeled: float32 [U, D], U >= 1.
        fitted: The head that was fitted on labels alone, whose penalty and temperature are used.
        how: How heads are fitted; `fitted` was fitted in the same way.
    """

    def __init__(self, train: tuple[Tensor, Tensor], unlabeled: Tensor, fitted: FittedHead, how: HeadOptions) -> None:
        self._features = torch.cat([train[0], unlabeled])
        self._labels, self._fitted, self._how = train[1], fitted, how
        self._unlabeled = len(unlabeled)
        self._graph = NeighborGraph(self._features.numpy())

    def holdout(self, validation: tuple[Tensor, Tensor]) -> FittedHead:
        """Fit on all rows, and evaluate on the features float32 [E, D] and labels int64 [E] of other images."""
        head, used = self._fit_all()
        logits = head.logits(validation[0]).numpy()
        everyone = np.ones(len(logits), dtype=bool)
        return self._better(replace(self._fitted, head=head, logits=logits), used, validation[1].numpy(), everyone)

    def folds(self, folds: NDArray[np.integer], evaluated: int) -> FittedHead:
        """Fit on all rows, and evaluate the first E = `evaluated` of them by folds, those of `select_folds`.

        No fold's head is fitted on images that it is evaluated on, not even under a pseudo-label.
        """
        held_out, weightings, seen = fold_weightings(
            self._labels, folds, classes=self._how["classes"], weighting=self._how["weighting"]
        )
        tasks = list(zip(held_out, weightings, self._fitted.fold_heads, strict=True))
        with one_thread_each(self._features.shape, self._how["device"]) as at_a_time:
            heads = [head for head, _ in map_fits(lambda task: self._fit(*task), tasks, at_a_time)]
        head, used = self._fit_all()
        logits = out_of_fold_logits(self._features, heads, [out[:evaluated] for out in held_out], evaluated)
        refined = replace(self._fitted, head=head, fold_heads=heads, logits=logits, single_image_accuracy=None)
        return self._better(refined, used, self._labels[:evaluated].numpy(), seen[:evaluated])

    def fit(self) -> SoftmaxHead:
        """Fit on all rows."""
        return self._fit_all()[0]

    def _fit_all(self) -> tuple[SoftmaxHead, int]:
        weights = self._how["weighting"].row_weights(self._labels, self._how["classes"])
        return self._fit(torch.zeros(len(self._labels), dtype=torch.bool), weights, self._fitted.head)

    def _fit(self, held_out: Tensor, weights: Tensor, head: SoftmaxHead) -> tuple[SoftmaxHead, int]:
        """Fit on the rows that are not held out, and on unlabeled images; return their number as well.

        Args:
            held_out: bool [N].
            weights: float32 [N].
            head: Fitted on the same rows alone.
        """
        classes, weighting, device = self._how["classes"], self._how["weighting"], self._how["device"]
        known = torch.where(held_out, HELD_OUT, self._labels).numpy()
        labels = np.concatenate([known, np.full(self._unlabeled, UNLABELED)])
        rows, found = pseudo_labels(
            self._graph, self._features, labels, head, self._fitted.temperature, self._fitted.log_prior
        )
        kept = torch.from_numpy(np.concatenate([np.flatnonzero(known >= 0), rows]))
        targets = torch.cat([self._labels[~held_out], torch.from_numpy(found)])
        all_weights = torch.cat([weights[~held_out], weighting.row_weights(torch.from_numpy(found), classes)])
        fits = HeadFits(self._features[kept], targets, [all_weights], classes=classes, device=device)
        ((refined,),) = fits.path([self._fitted.l2], self._fitted.within_weight)
        return refined, len(rows)

    def _better(
        self, refined: FittedHead, used: int, labels: NDArray[np.int64], counted: NDArray[np.bool_]
    ) -> FittedHead:
        """Return the refined head, or the plain one if it is clearly better on the images that count, bool [E].

        Clearly: by more than one standard error of the mean difference of their losses. With a few dozen labels,
        smaller ones are noise, and unlabeled images help on most data. If no image counts, nothing speaks for them.
        """
        truth, plain = labels[counted], self._fitted
        temperature, loss, loss_without, kept = plain.temperature, None, None, False
        if counted.any():
            temperature, losses = held_out_losses(refined.logits[counted], truth, plain.log_prior)
            _, losses_without = held_out_losses(plain.logits[counted], truth, plain.log_prior)
            loss, loss_without = float(losses.mean()), float(losses_without.mean())
            error = float((losses - losses_without).std()) / math.sqrt(max(1, len(truth) - 1))
            kept = used > 0 and loss - loss_without <= error
        use = UnlabeledUse(
            images=self._unlabeled,
            used=used if kept else 0,
            loss=loss,
            loss_without=loss_without,
            accuracy_without=float((plain.logits.argmax(axis=1) == labels).mean()),
        )
        return replace(refined, temperature=temperature, unlabeled=use) if kept else replace(plain, unlabeled=use)
