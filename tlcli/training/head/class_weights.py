"""How much the classes count in a fit: their weights, and the prior that these leave out.

Shapes: N images, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ClassWeighting:
    """The weights of classes in training. Evaluation is never weighted."""

    balance: bool = False
    """Whether each class is weighted by its inverse frequency."""
    factors: tuple[float, ...] | None = None
    """[k], by which the weights of the classes are multiplied; None multiplies by nothing."""

    def row_weights(self, labels: Tensor, classes: int, counts: Tensor | None = None) -> Tensor:
        """Return the weight of each image.

        Args:
            labels: int64 [N].
            classes: Number of classes k. Classes without images are ignored.
            counts: int64 [k], the frequencies of the classes that the weights should restore; None takes those of
                `labels`.

        Returns:
            float32 [N] with mean 1. If classes are balanced, the weights of each class present add up to the same sum,
            times its factor.
        """
        present = torch.bincount(labels, minlength=classes)
        if self.balance:
            weights = len(labels) / (present > 0).sum() / present
        else:
            weights = torch.ones(classes) if counts is None else counts / present
        if self.factors is not None:
            weights = weights * torch.tensor(self.factors, dtype=torch.float32)
        found = weights[labels].to(torch.float32)
        return found if self.factors is None and counts is None else found / found.mean()

    def log_prior(self, labels: Tensor, classes: int) -> NDArray[np.float64] | None:
        """Return what converts scores to probabilities at the class frequencies of `labels` int64 [N]: float [k].

        If classes are balanced, it is the logarithms of their frequencies; a class without rows counts as half an
        image. Factors are divided out. None if there are no weights.
        """
        if not self.balance and self.factors is None:
            return None
        log_prior = np.zeros(classes)
        if self.balance:
            counts = np.bincount(labels.numpy(), minlength=classes).astype(np.float64)
            log_prior += np.log(np.maximum(counts, 0.5) / len(labels))
        if self.factors is not None:
            log_prior -= np.log(self.factors)
        return log_prior


UNWEIGHTED = ClassWeighting()
