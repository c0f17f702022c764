"""Heads of parts of the images: the points of the learning curve."""

import numpy as np
import pytest
import torch
from head_fits import blobs

from tlcli.training.head import parts
from tlcli.training.head.class_weights import UNWEIGHTED, ClassWeighting
from tlcli.training.head.l2_selection import select_folds, select_holdout
from tlcli.training.head.parts import fold_part_errors, holdout_part_errors, order_in_class
from tlcli.training.head.softmax_regression import HeadFits

HOW = {"classes": 3, "weighting": UNWEIGHTED, "device": "cpu"}


class Mapped:
    """Features that are read on demand."""

    def __init__(self, values):
        self.values, self.shape = values.numpy(), tuple(values.shape)

    def read(self, start, stop):
        return self.values[start:stop].copy()


def test_parts_are_nested_and_stratified():
    labels = [0] * 100 + [1] * 10
    order = order_in_class([f"image {number}" for number in range(110)], labels, seed=0)
    for share, counts in [(0.1, [10, 1]), (0.2, [20, 2]), (0.5, [50, 5])]:
        assert np.bincount(np.array(labels)[order < share]).tolist() == counts
    assert not np.array_equal(order, order_in_class([f"image {number}" for number in range(110)], labels, seed=1))


def test_groups_are_not_divided():
    keys = [f"group {number // 5}" for number in range(100)]
    order = order_in_class(keys, [0] * 100, seed=0)
    assert all(len(set(order[start : start + 5])) == 1 for start in range(0, 100, 5))
    assert (order < 0.2).sum() == 20


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("count", [40, 300])
def test_a_part_with_all_rows_gives_the_same_head(streamed, count):
    x, y = blobs(count)
    weights = [torch.ones(count), (torch.arange(count) % 3 > 0).float()]
    fits = HeadFits(Mapped(x) if streamed else x, y, weights, classes=3)
    (heads,) = fits.path([0.1])
    for head, again in zip(heads, fits.on_parts(heads, weights, 0.1, 0.07), strict=True):
        assert torch.allclose(again.logits(x), head.logits(x), atol=2e-3)


def test_a_head_of_a_part_ignores_the_other_labels():
    x, y = blobs(300)
    wrong = torch.where(torch.arange(300) < 150, y, (y + 1) % 3)
    part = (torch.arange(300) < 150).float()

    def accuracy(labels):
        fits = HeadFits(x, labels, [torch.ones(300)], classes=3)
        ((head,),) = fits.path([0.1])
        (again,) = fits.on_parts([head], [part], 0.1, 0.0)
        return (again.logits(x).argmax(dim=1) == y).float().mean()

    assert accuracy(wrong) == pytest.approx(float(accuracy(y)), abs=0.02)


@pytest.mark.parametrize("weighting", [UNWEIGHTED, ClassWeighting(balance=True)])
def test_more_images_make_fewer_errors_out_of_fold(weighting):
    x, y = blobs(400, spread=0.5)
    how = HOW | {"weighting": weighting}
    folds = np.arange(400) % 5
    fitted = select_folds((x, y), folds, **how)
    found = fold_part_errors((x, y), fitted, folds, np.random.default_rng(0).random(400), how)
    assert found.images == pytest.approx([32, 64, 160, 320], rel=0.25)
    assert found.wrong.shape == (4, 400)
    assert np.array_equal(found.wrong[-1], fitted.logits.argmax(axis=1) != y.numpy())
    assert found.wrong[0].sum() > found.wrong[-1].sum()


def test_with_many_images_some_folds_are_enough(monkeypatch):
    monkeypatch.setattr(parts, "FEW_IMAGES", 100)
    monkeypatch.setattr(parts, "ENOUGH_HELD_OUT", 100)
    x, y = blobs(400)
    folds = np.arange(400) % 5
    found = fold_part_errors(
        (x, y), select_folds((x, y), folds, **HOW), folds, np.random.default_rng(0).random(400), HOW
    )
    assert found.wrong.shape == (4, 160)
    assert found.images[-1] == 320


def test_validation_images_evaluate_parts_of_a_bounded_size(monkeypatch):
    monkeypatch.setattr(parts, "MOST_ROWS", 100)
    x, y = blobs(400)
    validation = blobs(200, seed=1)
    fitted = select_holdout((x, y), validation, **HOW)
    found = holdout_part_errors((x, y), validation, fitted, np.arange(400) / 400, HOW)
    assert found.images == [20, 40, 100, 400]
    assert np.array_equal(found.wrong[-1], fitted.logits.argmax(axis=1) != validation[1].numpy())


def test_few_validation_images_are_joined_by_training_images_that_no_head_of_a_part_knows():
    x, y = blobs(400)
    order = np.arange(400) / 400
    hidden = order >= 0.8
    mislabeled = torch.where(torch.from_numpy(hidden), (y + 1) % 3, y)
    validation = blobs(200, seed=1)
    fitted = select_holdout((x, mislabeled), validation, **HOW)
    found = holdout_part_errors((x, mislabeled), validation, fitted, order, HOW)
    assert found.images == [40, 80, 200, 320]
    assert found.wrong.shape == (4, 280)
    assert found.wrong[:, :200].mean() < 0.2
    assert found.wrong[:, 200:].mean() > 0.8, "a head that was fitted on these labels would know them"


def test_enough_validation_images_are_not_joined_by_training_images():
    x, y = blobs(400)
    validation = blobs(parts.ENOUGH_HELD_OUT, seed=1)
    fitted = select_holdout((x, y), validation, **HOW)
    found = holdout_part_errors((x, y), validation, fitted, np.arange(400) / 400, HOW)
    assert found.images[-1] == 400
    assert np.array_equal(found.wrong[-1], fitted.logits.argmax(axis=1) != validation[1].numpy())


def test_views_of_an_image_are_in_the_same_parts():
    x, y = blobs(200)
    validation = blobs(100, seed=1)
    both = torch.cat([x, x]), torch.cat([y, y])
    order = np.random.default_rng(0).random(200)
    once = holdout_part_errors((x, y), validation, select_holdout((x, y), validation, **HOW), order, HOW)
    twice = holdout_part_errors(both, validation, select_holdout(both, validation, **HOW), order, HOW)
    assert once.images == twice.images
