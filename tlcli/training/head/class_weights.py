"""What class frequencies mean for a fit: weights that balance classes, and the prior that they leave out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Weight every image by the inverse frequency of its class.

    Args:
        labels: int64 [N].
        classes: Number of classes. Classes without images are ignored.

    Returns:
        float32 [N] with mean 1; the weights of each class present add up to the same sum.
    """
    counts = torch.bincount(labels, minlength=classes)
    return (len(labels) / (counts > 0).sum() / counts[labels]).to(torch.float32)


def class_log_prior(labels: Tensor, classes: int) -> NDArray[np.float64]:
    """Return the logarithms of the class frequencies: float [k]. A class without rows counts as half an image."""
    counts = np.bincount(labels.numpy(), minlength=classes).astype(np.float64)
    log_prior: NDArray[np.float64] = np.log(np.maximum(counts, 0.5) / len(labels))
    return log_prior
