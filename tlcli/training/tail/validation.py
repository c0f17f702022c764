"""Evaluate a tail on images that it was not trained on.

Shapes: M images, k classes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlcli.engines.batch_splitter import BatchSplitter
from tlcli.inference.calibration import calibrated_probabilities, fit_temperature
from tlcli.training.tail.batches import Source, to_device


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    """Logits on the validation images, and their metrics at the best temperature."""

    logits: NDArray[np.float32]
    """[M, k]."""
    temperature: float
    losses: NDArray[np.float64]
    """[M], negative log-likelihoods at that temperature, in nats."""
    correct: NDArray[np.bool_]
    """[M], whether each prediction is correct."""

    @property
    def accuracy(self) -> float:
        """The share of correct predictions."""
        return float(self.correct.mean())

    @property
    def loss(self) -> float:
        """The mean of `losses`."""
        return float(self.losses.mean())


def validate(
    logits: NDArray[np.float32], labels: NDArray[np.integer], log_prior: NDArray[np.float64] | None
) -> ValidationResult:
    """Evaluate logits at the temperature that fits them best. The loss is infinite if a logit is NaN or infinite.

    Args:
        logits: float32 [M, k].
        labels: int [M].
        log_prior: [k], added to the logits if classes were weighted.
    """
    if not np.isfinite(logits).all():
        wrong = np.zeros(len(labels), dtype=bool)
        return ValidationResult(logits=logits, temperature=1.0, losses=np.full(len(labels), np.inf), correct=wrong)
    temperature = fit_temperature(logits, labels, log_prior)
    likelihoods = calibrated_probabilities(logits, temperature, log_prior)[np.arange(len(labels)), labels]
    return ValidationResult(
        logits=logits,
        temperature=temperature,
        losses=-np.log(np.maximum(likelihoods.astype(np.float64), 1e-12)),
        correct=logits.argmax(axis=1) == labels,
    )


def _batch_logits(tail: nn.Module, inputs: Tensor, part: slice) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = tail(inputs[part]).float().cpu().numpy()
    return logits


@torch.inference_mode()
def predict_batches(
    tail: nn.Module, source: Source, batches: Sequence[Sequence[int]], device: torch.device
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """Run a tail in full precision, as prediction does.

    Args:
        tail: Features to logits [B, k].
        source: Loads the batches.
        batches: Rows of the source.
        device: Where the tail is.

    Returns:
        The rows whose images can still be read, and their logits: float32 [B, k] of parts of batches.
    """
    tail.eval()
    splitter = BatchSplitter(device, lambda _: None)
    found: list[int] = []
    logits: list[NDArray[np.float32]] = []
    for rows, inputs in source.load(batches, 0):
        if len(rows):
            found += rows.tolist()
            logits += splitter.run(functools.partial(_batch_logits, tail, to_device(inputs, device)), len(rows))
    return found, logits
