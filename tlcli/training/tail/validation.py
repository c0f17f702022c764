"""How good a tail is on images that it was not trained on.

Shapes: M images, k classes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlcli import processes
from tlcli.engines.batch_splitter import BatchSplitter
from tlcli.errors import DataError
from tlcli.inference.calibration import calibrated_probabilities, fit_temperature
from tlcli.training.tail.batches import Source, to_device

EVALUATED_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """A tail's logits on the validation images, and how good they are."""

    logits: NDArray[np.float32]
    """[M, k]."""
    temperature: float
    losses: NDArray[np.float64]
    """[M], negative log likelihoods at that temperature, in nats."""
    accuracy: float

    @property
    def loss(self) -> float:
        """Their mean."""
        return float(self.losses.mean())


def judge(logits: NDArray[np.float32], labels: NDArray[np.integer], log_prior: NDArray[np.float64] | None) -> Judgment:
    """How good logits [M, k] are, at the temperature that suits them best; infinitely bad if one is no number."""
    if not np.isfinite(logits).all():
        return Judgment(logits=logits, temperature=1.0, losses=np.full(len(labels), np.inf), accuracy=0.0)
    temperature = fit_temperature(logits, labels, log_prior)
    shares = calibrated_probabilities(logits, temperature, log_prior)[np.arange(len(labels)), labels]
    return Judgment(
        logits=logits,
        temperature=temperature,
        losses=-np.log(np.maximum(shares.astype(np.float64), 1e-12)),
        accuracy=float((logits.argmax(axis=1) == labels).mean()),
    )


def _logits(tail: nn.Module, inputs: Tensor, part: slice) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tail(inputs[part]).float().cpu().numpy()
    return found


@torch.inference_mode()
def logits_of(
    tail: nn.Module, source: Source, count: int, device: torch.device, splitter: BatchSplitter | None = None
) -> tuple[list[int], NDArray[np.float32]]:
    """What a tail says of the rows 0 .. count - 1 of a source, in full precision, as prediction does.

    Several processes share the rows; each gets what all found.

    Returns:
        The rows whose images can still be read, M of them, and their logits float32 [M, k].

    Raises:
        DataError: none can.
    """
    tail.eval()
    splitter = splitter or BatchSplitter(device, lambda _: None)
    starts = range(0, count, EVALUATED_AT_ONCE)
    batches = [list(range(start, min(start + EVALUATED_AT_ONCE, count))) for start in starts]
    found: list[int] = []
    logits: list[NDArray[np.float32]] = []
    for rows, inputs in source.load(processes.share(batches), 0):
        if len(rows):
            found += rows.tolist()
            logits += splitter.run(functools.partial(_logits, tail, to_device(inputs, device)), len(rows))
    parts = processes.gather((found, logits))
    found, logits = [row for rows, _ in parts for row in rows], [some for _, arrays in parts for some in arrays]
    if not found:
        raise DataError(
            f"all {count:,} images to judge by changed or vanished since the run began. Put them back and go on with "
            "--resume, or start again with --overwrite for what is there now."
        )
    return found, np.concatenate(logits)
