"""Balanced and weighted classes: what is predicted more often, and probabilities that stay true to the frequencies."""

import numpy as np
import pytest
import torch
from head_fits import blobs

from tlcli.inference.calibration import calibrated_probabilities
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.head.l2_selection import select_folds, select_holdout


def test_balance_helps_the_rare_class():
    x, y = blobs(600, classes=2, spread=0.25)
    keep = (y == 0) | (torch.arange(600) % 12 == 0)
    vx, vy = blobs(400, classes=2, spread=0.25, seed=1)
    plain = select_holdout((x[keep], y[keep]), (vx, vy), classes=2)
    balanced = select_holdout((x[keep], y[keep]), (vx, vy), classes=2, weighting=ClassWeighting(balance=True))
    found = [(one.logits.argmax(axis=1)[vy == 1] == 1).mean() for one in (plain, balanced)]
    assert found[1] > found[0] + 0.1


def test_balanced_labels_keep_confidence_true_to_the_frequencies():
    """Overlapping classes 9:1: balancing predicts the rare one more often, and the probabilities still add up."""
    generator = torch.Generator().manual_seed(0)

    def sample(count):
        labels = (torch.rand(count, generator=generator) < 0.1).long()
        return torch.randn(count, 2, generator=generator) + labels[:, None] * 1.2, labels

    x, y = sample(2000)
    chosen = select_holdout((x, y), sample(2000), classes=2, weighting=ClassWeighting(balance=True))
    plain = select_holdout((x, y), sample(2000), classes=2)
    assert plain.log_prior is None
    features, labels = sample(5000)
    logits = chosen.head.logits(features).numpy()
    shares = calibrated_probabilities(logits, chosen.temperature, chosen.log_prior)
    said_rare = logits.argmax(axis=1) == 1
    assert said_rare.mean() > 2 * (plain.head.logits(features).numpy().argmax(axis=1) == 1).mean()
    assert abs(shares[:, 1].mean() - labels.float().mean().item()) < 0.02
    right = labels.numpy()[said_rare].mean()
    assert abs(shares[said_rare, 1].mean() - right) < 0.05


def test_a_class_of_weight_2_is_preferred_as_if_it_had_twice_the_images():
    generator = torch.Generator().manual_seed(0)

    def sample(count):
        labels = (torch.rand(count, generator=generator) < 0.5).long()
        return torch.randn(count, 2, generator=generator) + labels[:, None] * 1.2, labels

    x, y = sample(2000)
    double = torch.cat([torch.arange(2000), torch.nonzero(y).squeeze(1)])
    weighted = select_folds((x, y), np.arange(2000) % 5, classes=2, weighting=ClassWeighting(factors=(1.0, 2.0)))
    doubled = select_folds((x[double], y[double]), double.numpy() % 5, classes=2)
    features, labels = sample(5000)
    logits = weighted.head.logits(features).numpy()
    said = logits.argmax(axis=1) == 1
    assert said.mean() == pytest.approx((doubled.head.logits(features).numpy().argmax(axis=1) == 1).mean(), abs=0.02)
    assert said.mean() > labels.float().mean() + 0.1
    shares = calibrated_probabilities(logits, weighted.temperature, weighted.log_prior)
    assert abs(shares[:, 1].mean() - labels.float().mean().item()) < 0.035
    assert abs(shares[said, 1].mean() - labels.numpy()[said].mean()) < 0.05


def test_weights_multiply_those_of_balanced_classes():
    labels = torch.tensor([0] * 6 + [2] * 2 + [3])
    weights = ClassWeighting(balance=True, factors=(1.0, 1.0, 1.0, 4.0)).row_weights(labels, 4)
    assert float(weights.mean()) == pytest.approx(1.0)
    assert [float(weights[labels == c].sum()) for c in (0, 2, 3)] == pytest.approx([1.5, 1.5, 6.0])
    assert ClassWeighting().log_prior(labels, 4) is None
    prior = ClassWeighting(balance=True, factors=(1.0, 1.0, 1.0, 4.0)).log_prior(labels, 4)
    assert prior == pytest.approx(np.log([6 / 9, 0.5 / 9, 2 / 9, 1 / 9 / 4]))
