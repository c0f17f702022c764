"""L2 and temperature are chosen on images that the head was not fitted on."""

import numpy as np
import pytest
import torch
from head_fits import blobs, fit_path

from tlcli.datasets.splits import assign_folds
from tlcli.inference.calibration import calibrated_probabilities, fit_temperature
from tlcli.training.head import standardization, sweep
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.head.l2_selection import Penalty, out_of_fold_accuracy, select_folds, select_holdout
from tlcli.training.head.softmax_regression import WITHIN_WEIGHT
from tlcli.training.head.sweep import FEW_IMAGES_WITHIN_WEIGHT, L2S


def same(one, other) -> bool:
    return (
        torch.equal(one.head.weight, other.head.weight)
        and torch.equal(one.head.bias, other.head.bias)
        and np.array_equal(one.logits, other.logits)
        and (one.l2, one.temperature, one.sweep) == (other.l2, other.temperature, other.sweep)
    )


def test_holdout_returns_the_plain_fit_at_its_l2():
    x, y = blobs(150)
    vx, vy = blobs(60, seed=1)
    chosen = select_holdout((x, y), (vx, vy), classes=3)
    path = list(fit_path(x, y, classes=3, l2s=L2S[: L2S.index(chosen.l2) + 1], within_weight=chosen.within_weight))
    assert chosen.method == "holdout"
    assert torch.equal(chosen.head.weight, path[-1].weight)
    assert np.array_equal(chosen.logits, chosen.head.logits(vx).numpy())
    assert chosen.temperature == fit_temperature(chosen.logits, vy.numpy())
    entry = next(entry for entry in chosen.sweep if entry["l2"] == chosen.l2)
    likelihood = calibrated_probabilities(chosen.logits, chosen.temperature)[np.arange(60), vy.numpy()]
    assert entry["loss"] == pytest.approx(-np.log(likelihood).mean(), rel=1e-5)
    assert entry["accuracy"] == pytest.approx((chosen.logits.argmax(axis=1) == vy.numpy()).mean())


def test_the_strongest_l2_wins_among_near_ties():
    x, y = blobs(150)
    chosen = select_holdout((x, y), blobs(60, seed=1), classes=3)
    losses = {entry["l2"]: entry["loss"] for entry in chosen.sweep}
    assert losses[chosen.l2] <= min(losses.values()) * 1.02
    assert all(losses[chosen.l2] < loss for l2, loss in losses.items() if l2 > chosen.l2)
    assert list(losses) == sorted(losses, reverse=True)


def test_much_clear_data_calls_for_a_weaker_l2_than_little_noisy_data():
    plenty = select_holdout(blobs(3000), blobs(1000, seed=1), classes=3)
    little = select_holdout(blobs(12, spread=0.3), blobs(1000, spread=0.3, seed=1), classes=3)
    assert plenty.l2 < little.l2


def test_out_of_fold_logits_come_from_a_head_that_had_not_seen_the_row(monkeypatch):
    monkeypatch.setattr(sweep, "L2S", (0.1,))
    x, y = blobs(61)
    folds = torch.arange(61) % 5
    seen = folds != 2
    x[~seen] *= 7  # would shift mean, deviation and weights if they leaked into the fit
    chosen = select_folds((x, y), folds.numpy(), classes=3)
    to_all_frequencies = (torch.bincount(y) / torch.bincount(y[seen]))[y[seen]]
    weights = to_all_frequencies / to_all_frequencies.mean()
    how = {"classes": 3, "l2s": [0.1], "within_weight": chosen.within_weight}
    (head,) = fit_path(x[seen], y[seen], sample_weights=weights, **how)
    assert np.array_equal(chosen.logits[~seen.numpy()], head.logits(x[~seen]).numpy())


def test_leave_one_out_equals_a_fit_without_each_row(monkeypatch):
    monkeypatch.setattr(sweep, "L2S", (1.0,))
    x, y = blobs(12)
    chosen = select_folds((x, y), np.arange(12), classes=3)
    assert chosen.method == "12-fold"
    for row in range(12):
        rest = torch.arange(12) != row
        weights = (torch.bincount(y) / torch.bincount(y[rest]))[y[rest]]
        how = {"classes": 3, "l2s": [1.0], "within_weight": chosen.within_weight}
        (head,) = fit_path(x[rest], y[rest], sample_weights=weights / weights.mean(), **how)
        assert chosen.logits[row] == pytest.approx(head.logits(x[row : row + 1])[0].numpy(), abs=1e-5)


def test_logits_are_averaged_over_divisions_into_folds(monkeypatch):
    monkeypatch.setattr(sweep, "L2S", (1.0,))
    x, y = blobs(12)
    divisions = np.array([np.arange(12) % 3, np.arange(12) // 3])
    alone = [select_folds((x, y), folds, classes=3).logits for folds in divisions]
    together = select_folds((x, y), divisions, classes=3)
    np.testing.assert_allclose(together.logits, np.mean(alone, axis=0), rtol=1e-5, atol=1e-6)
    penalty = Penalty(l2=1.0, within_weight=together.within_weight)
    accuracy = out_of_fold_accuracy((x, y), divisions, penalty=penalty, classes=3, evaluated=12)
    assert accuracy == (together.logits.argmax(axis=1) == y.numpy()).mean()


@pytest.mark.parametrize("per_class", [3, 5])
def test_the_accuracy_on_few_images_is_that_on_other_images(per_class):
    """On average over several sets of images; leaving one out would underestimate it by ten to fifteen points."""
    rng = np.random.default_rng(0)
    centers = 0.2 * rng.normal(size=(10, 300))

    def sample(count):
        labels = np.repeat(np.arange(10), count)
        x = centers[labels] + rng.normal(size=(len(labels), 300))
        return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(labels)

    differences = []
    for seed in range(24):
        (x, y), (others, truth) = sample(per_class), sample(50)
        folds = np.array(assign_folds([str(row) for row in range(len(y))], y.tolist(), seed=seed))
        chosen = select_folds((x, y), folds, classes=10)
        reported = (chosen.logits.argmax(axis=1) == y.numpy()).mean()
        differences.append(reported - (chosen.head.logits(others).argmax(dim=1) == truth).float().mean().item())
    assert abs(np.mean(differences)) < 0.05


def test_few_images_are_no_worse_than_the_nearest_class_mean():
    """Features of unlike variance, of which most are noise, as those of a backbone are for a few classes."""
    rng = np.random.default_rng(0)
    scales = rng.lognormal(sigma=1, size=200)
    centers = 0.35 * scales * rng.normal(size=(10, 200))

    def sample(per_class):
        labels = np.repeat(np.arange(10), per_class)
        x = centers[labels] + scales * rng.normal(size=(len(labels), 200))
        return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(labels)

    for per_class in (3, 5, 10):
        (x, y), (tx, ty) = sample(per_class), sample(100)
        means = torch.stack([x[y == label].mean(dim=0) for label in range(10)])
        nearest = (torch.cdist(tx, means).argmin(dim=1) == ty).float().mean()
        chosen = select_folds((x, y), np.arange(len(y)), classes=10)
        accuracy = (chosen.head.logits(tx).argmax(dim=1) == ty).float().mean()
        assert accuracy >= nearest - 0.005


def test_the_covariance_within_classes_counts_more_where_it_helps():
    """Images of a class differ far more in ten directions than in others, or equally in all; then it is only noise."""
    rng = np.random.default_rng(0)
    centers, turn = 0.25 * rng.normal(size=(6, 100)), np.linalg.qr(rng.normal(size=(100, 100)))[0]

    def select(spreads, per_class):
        labels = np.repeat(np.arange(6), per_class)
        x = ((centers[labels] + spreads * rng.normal(size=(len(labels), 100))) @ turn).astype(np.float32)
        return select_folds((torch.from_numpy(x), torch.from_numpy(labels)), np.arange(len(x)) % 5, classes=6)

    unlike, alike = np.where(np.arange(100) < 10, 6.0, 0.6), np.full(100, 0.6)
    assert select(unlike, 20).within_weight == FEW_IMAGES_WITHIN_WEIGHT
    assert select(alike, 20).within_weight == WITHIN_WEIGHT
    assert select(unlike, 100).within_weight == WITHIN_WEIGHT  # many images: the default, without a second sweep


@pytest.mark.parametrize("balance", [False, True])
def test_folds_refit_on_every_row(balance):
    x, y = blobs(80)
    chosen = select_folds((x, y), np.arange(80) % 5, classes=3, weighting=ClassWeighting(balance=balance))
    weights = ClassWeighting(balance=True).row_weights(y, 3) if balance else None
    (head,) = fit_path(x, y, classes=3, l2s=[chosen.l2], within_weight=chosen.within_weight, sample_weights=weights)
    assert chosen.method == "5-fold"
    assert torch.equal(chosen.head.weight, head.weight)
    assert chosen.logits.shape == (80, 3)
    assert chosen.logits.dtype == np.float32


def test_labels_without_meaning_give_chance_out_of_fold():
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(size=(200, 400)).astype(np.float32))
    y = torch.from_numpy(rng.permutation(np.arange(200) % 2))
    chosen = select_folds((x, y), rng.integers(5, size=200), classes=2)
    assert abs((chosen.logits.argmax(axis=1) == y.numpy()).mean() - 0.5) < 0.12
    confidence = calibrated_probabilities(chosen.logits, chosen.temperature).max(axis=1)
    assert confidence.mean() < 0.65


@pytest.mark.parametrize(
    "folds",
    [
        np.zeros(10, dtype=int),
        np.full(10, 4),
        np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1]),
        np.array([0, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        np.arange(10) // 2,
    ],
    ids=["all in the first", "all in the last", "three empty, each holds a class", "one alone", "pairs"],
)
def test_lopsided_folds_still_give_a_head(folds):
    x, y = blobs(10, classes=2, spread=2.0)
    y = torch.arange(10) % 2
    chosen = select_folds((x, y), folds, classes=2)
    assert torch.isfinite(chosen.head.weight).all()
    assert np.isfinite(chosen.logits).all()
    assert 0.05 <= chosen.temperature <= 20
    assert all(np.isfinite(list(entry.values())).all() for entry in chosen.sweep)


def test_a_class_a_fold_never_saw_does_not_spoil_the_temperature():
    x, y = blobs(41, classes=2, spread=2.0)
    y[40] = 2
    folds = np.arange(41) % 5
    chosen = select_folds((x, y), folds, classes=3)
    assert chosen.temperature < 2
    assert chosen.logits[40].argmax() != 2


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_five_images_a_class_work(classes):
    x, y = blobs(5 * classes, classes=classes, features=1280)
    chosen = select_folds((x, y), np.random.default_rng(0).integers(5, size=5 * classes), classes=classes)
    likelihood = calibrated_probabilities(chosen.logits, chosen.temperature)
    assert np.isfinite(likelihood).all()
    assert likelihood.max() < 1


def test_two_runs_are_bit_equal():
    x, y = blobs(90)
    vx, vy = blobs(40, seed=1)
    assert same(select_holdout((x, y), (vx, vy), classes=3), select_holdout((x, y), (vx, vy), classes=3))
    folds = np.arange(90) % 5
    assert same(select_folds((x, y), folds, classes=3), select_folds((x, y), folds, classes=3))


def test_progress_counts_up_to_the_end():
    calls = []
    x, y = blobs(40)
    select_holdout((x, y), blobs(20, seed=1), classes=3, progress=calls.append)
    assert sum(calls) == len(L2S)
    assert min(calls) >= 0
    assert len(calls) > 1


def test_the_sweep_ends_when_weaker_is_no_better(monkeypatch):
    chosen = select_holdout(blobs(30, spread=0.2), blobs(200, spread=0.2, seed=1), classes=3)
    assert len(chosen.sweep) < len(L2S)
    monkeypatch.setattr(sweep, "L2_PATIENCE", 100)
    assert len(select_holdout(blobs(30, spread=0.2), blobs(200, seed=1), classes=3).sweep) == len(L2S)


class Mapped:
    def __init__(self, features):
        self._features, self.shape = features.numpy(), tuple(features.shape)

    def read(self, start, stop):
        return self._features[start:stop].copy()


@pytest.mark.parametrize("balance", [False, True])
def test_streamed_or_in_memory_the_choice_is_the_same(monkeypatch, balance):
    monkeypatch.setattr(standardization, "BLOCK", 17)
    x, y = blobs(90)
    folds = np.arange(90) % 5
    whole = select_folds((x, y), folds, classes=3, evaluated=60, weighting=ClassWeighting(balance=balance))
    streamed = select_folds((Mapped(x), y), folds, classes=3, evaluated=60, weighting=ClassWeighting(balance=balance))
    assert streamed.l2 == whole.l2
    assert streamed.logits.shape == whole.logits.shape == (60, 3)
    np.testing.assert_allclose(streamed.logits, whole.logits, atol=0.02)
    torch.testing.assert_close(streamed.head.weight, whole.head.weight, rtol=0.02, atol=0.02)
    held = select_holdout((Mapped(x), y), blobs(40, seed=1), classes=3, weighting=ClassWeighting(balance=balance))
    assert held.l2 == select_holdout((x, y), blobs(40, seed=1), classes=3, weighting=ClassWeighting(balance=balance)).l2
