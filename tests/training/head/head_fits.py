"""Made-up features with labels, and heads that are fitted on them."""

import numpy as np
import torch

from tlcli.training.head.softmax_regression import WITHIN_WEIGHT, fit_paths


def fit_path(features, labels, *, classes, l2s, within_weight=WITHIN_WEIGHT, sample_weights=None, device="cpu"):
    """One weighting's heads."""
    weights = torch.ones(len(labels)) if sample_weights is None else sample_weights
    options = {"classes": classes, "l2s": l2s, "within_weight": within_weight, "device": device}
    for (head,) in fit_paths(features, labels, [weights], **options):
        yield head


def blobs(rows: int, *, features: int = 20, classes: int = 3, spread: float = 0.6, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(rows) % classes)
    centers = np.random.default_rng(99).normal(size=(classes, features))
    x = (spread * centers[labels] + rng.normal(size=(rows, features))).astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(labels)
