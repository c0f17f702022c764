"""Heads that learn from unlabeled images as well."""

import numpy as np
import pytest
import torch

from tlcli.datasets.splits import assign_folds
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.head.l2_selection import select_folds, select_holdout
from tlcli.training.head.pseudo_labels import MOST_SURE, NeighborGraph, pseudo_labels
from tlcli.training.head.semi_supervised import SemiSupervisedFit

HOW = {"classes": 3, "weighting": ClassWeighting(), "device": "cpu"}


def curves(count, *, seed=0):
    """Three arcs in space, far longer than wide: few labels say little about their ends, their neighbors a lot."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 3)
    angle = rng.uniform(0, 2.5, count)
    axes = np.linalg.qr(np.random.default_rng(7).normal(size=(40, 6)))[0]
    planes = axes.reshape(40, 3, 2)[:, labels]
    x = planes[:, :, 0] * np.cos(angle) + planes[:, :, 1] * np.sin(angle)
    x = x.T + rng.normal(scale=0.04, size=(count, 40)) + 0.4 * axes[:, 0]
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(labels)


def fitted(x, y, folds):
    return select_folds((x, y), folds, evaluated=len(y), **HOW)


def test_labels_spread_along_a_curve():
    x, y = curves(300)
    known = np.full(300, -1)
    for label in range(3):
        known[np.flatnonzero(y.numpy() == label)[0]] = label
    shares = NeighborGraph(x.numpy()).spread(known, 3)
    assert shares.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (shares.argmax(axis=1) == y.numpy()).mean() > 0.98


def test_unlabeled_images_raise_the_accuracy_of_few_labels():
    x, y = curves(12)
    others, _ = curves(600, seed=1)
    new, truth = curves(600, seed=2)
    folds = assign_folds([str(row) for row in range(12)], y.tolist(), seed=0)
    plain = fitted(x, y, folds)
    refined = SemiSupervisedFit((x, y), others, plain, HOW).folds(folds, 12)
    accuracy = [(head.logits(new).argmax(dim=1) == truth).float().mean() for head in (plain.head, refined.head)]
    assert refined.unlabeled.used > 200
    assert refined.unlabeled.loss < refined.unlabeled.loss_without
    assert accuracy[1] > accuracy[0] + 0.05
    assert refined.l2 == plain.l2


def test_the_head_of_the_labels_is_kept_where_unlabeled_images_do_not_help():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(60, 20)).astype(np.float32))
    y = (x[:, 0] > 0).long() + (x[:, 0] > 1).long()
    noise = torch.from_numpy(rng.normal(size=(300, 20)).astype(np.float32))
    noise[:, 0] = 0  # neighbors say nothing about the classes
    folds = assign_folds([str(row) for row in range(60)], y.tolist(), seed=0)
    plain = fitted(x, y, folds)
    refined = SemiSupervisedFit((x, y), noise, plain, HOW).folds(folds, 60)
    assert refined.unlabeled.used == 0
    assert refined.unlabeled.images == 300
    assert torch.equal(refined.head.weight, plain.head.weight)
    assert refined.temperature == plain.temperature


def test_a_fold_learns_nothing_about_the_images_it_is_evaluated_on():
    """Wrong labels of held-out images change nothing in the head that is evaluated on them."""
    x, y = curves(30)
    others, _ = curves(200, seed=1)
    folds = np.arange(30) % 2
    plain = fitted(x, y, folds)
    fit = SemiSupervisedFit((x, y), others, plain, HOW)
    changed = torch.where(torch.from_numpy(folds) == 0, (y + 1) % 3, y)
    other = SemiSupervisedFit((x, changed), others, plain, HOW)
    out = torch.from_numpy(folds == 0)
    weights = torch.ones(30).masked_fill_(out, 0)
    one, two = (some._fit(out, weights, plain.fold_heads[0])[0] for some in (fit, other))
    assert torch.equal(one.weight, two.weight)


def test_held_out_images_are_not_chosen():
    x, y = curves(90)
    known = np.where(np.arange(90) < 12, y.numpy(), -1)
    known[60:] = -2
    rows, found = pseudo_labels(NeighborGraph(x.numpy()), x, known, fitted(x[:12], y[:12], np.arange(12) % 2).head, 1.0)
    assert set(rows) <= set(range(12, 60))
    assert len(rows) == len(found) > 10
    assert (found == y.numpy()[rows]).mean() > 0.9


def test_the_number_of_chosen_images_is_bounded():
    x, y = curves(4000)
    known = np.where(np.arange(4000) < 30, y.numpy(), -1)
    rows, _ = pseudo_labels(NeighborGraph(x.numpy()), x, known, fitted(x[:30], y[:30], np.arange(30) % 2).head, 1.0)
    assert MOST_SURE / 3 < len(rows) <= MOST_SURE + 3


def test_validation_images_judge_as_well():
    x, y = curves(12)
    others, _ = curves(600, seed=1)
    validation = curves(100, seed=3)
    plain = select_holdout((x, y), validation, **HOW)
    refined = SemiSupervisedFit((x, y), others, plain, HOW).holdout(validation)
    assert refined.unlabeled.used
    assert np.array_equal(refined.logits, refined.head.logits(validation[0]).numpy())
    assert refined.unlabeled.accuracy_without == (plain.logits.argmax(axis=1) == validation[1].numpy()).mean()


def test_without_a_link_all_classes_are_equally_likely():
    x = np.eye(8, dtype=np.float32)
    assert NeighborGraph(x).spread(np.full(8, -1), 2) == pytest.approx(0.5)


def test_one_label_per_class_cannot_show_that_unlabeled_images_help():
    """Folds hold out the only image of a class, so no head could be right about it."""
    x, y = curves(3)
    others, _ = curves(60, seed=1)
    plain = fitted(x, y, np.arange(3))
    refined = SemiSupervisedFit((x, y), others, plain, HOW).folds(np.arange(3), 3)
    assert (refined.unlabeled.used, refined.unlabeled.loss, refined.unlabeled.loss_without) == (0, None, None)
    assert torch.equal(refined.head.weight, plain.head.weight)


def test_a_single_unlabeled_image_is_not_chosen():
    x, y = curves(12)
    folds = np.arange(12) % 4
    plain = fitted(x, y, folds)
    use = SemiSupervisedFit((x, y), curves(1, seed=1)[0], plain, HOW).folds(folds, 12).unlabeled
    assert (use.images, use.used) == (1, 0)
    assert use.accuracy_without == (plain.logits.argmax(axis=1) == y.numpy()).mean()


def test_held_out_images_pass_no_label_on():
    """A chain of images: beyond the held-out one, no label arrives."""
    angles = np.linspace(0, 1.5, 60)
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    known = np.full(60, -1)
    known[0], known[1] = 0, 1
    known[20:40] = -2
    shares = NeighborGraph(x).spread(known, 2)
    assert shares[45:] == pytest.approx(0.5)


def test_weights_of_classes_do_not_make_a_label_more_likely():
    x, y = curves(60)
    others, truth = curves(300, seed=1)
    folds = assign_folds([str(row) for row in range(60)], y.tolist(), seed=0)
    how = HOW | {"weighting": ClassWeighting(factors=(1e4, 1.0, 1.0))}
    plain = select_folds((x, y), folds, **how)
    features = torch.cat([x, others])
    known = np.concatenate([y.numpy(), np.full(300, -1)])
    graph = NeighborGraph(features.numpy())
    rows, found = pseudo_labels(graph, features, known, plain.head, plain.temperature, plain.log_prior)
    assert (found == truth.numpy()[rows - 60]).mean() > 0.95
    assert (plain.head.logits(others).argmax(dim=1) == truth).float().mean() < 0.9


@pytest.mark.parametrize("x", [np.ones((5, 4), np.float32), np.arange(5, dtype=np.float32)[:, None]])
def test_images_that_are_all_the_same_or_vary_in_one_way(x):
    shares = NeighborGraph(x).spread(np.array([0, 1, -1, -1, -1]), 2)
    assert np.isfinite(shares).all()
