"""The convex head: the same minimum as scikit-learn's, on every kind of data."""

import math

import numpy as np
import pytest
import torch
from head_fits import fit_path
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from tlcli.errors import DataError
from tlcli.training.head import softmax_regression, standardization
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.head.softmax_regression import WITHIN_WEIGHT, SoftmaxHead, fit_paths
from tlcli.training.head.statistics import MANY_IMAGES, SCALE_SHRINKAGE, scale_of


def blobs(rows: int, features: int, classes: int, *, spread: float = 1.0, seed: int = 0):
    """Correlated features around one center per class, on different scales and offsets; labels in random order."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    labels = labels[torch.randperm(rows, generator=generator)]
    centers = torch.randn(classes, features, generator=generator)
    noise = torch.randn(rows, features, generator=generator) @ torch.randn(features, features, generator=generator)
    mixed = spread * centers[labels] + noise / math.sqrt(features)
    return mixed * torch.rand(features, generator=generator) * 5 + 3, labels


def metric(features, labels):
    """The definition, in float64: what features are divided by, and the penalty as a matrix [D, D]."""
    raw = features.double()
    variance = raw.var(dim=0, correction=0)
    varying = variance > 1e-12 * raw.mean(dim=0).square()
    own = (1 - SCALE_SHRINKAGE) * min(1, len(raw) / MANY_IMAGES)
    shrunk = own * variance + (1 - own) * variance[varying].median()
    shrunk[~varying] = math.inf
    scale = (shrunk * (variance / shrunk)[varying].mean()).sqrt()
    scaled = raw / scale
    means = torch.stack([scaled[labels == label].mean(dim=0) for label in labels])
    deviations = scaled - means
    within = deviations.T @ deviations
    within /= within.trace() / raw.shape[1]
    return scale, torch.eye(raw.shape[1]).double() * (1 - WITHIN_WEIGHT) + WITHIN_WEIGHT * within


def objective(head: SoftmaxHead, features, labels, l2, sample_weights=None) -> float:
    """The definition, in float64, on raw features."""
    logits = features.double() @ head.weight.double().T + head.bias.double()
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    if sample_weights is not None:
        losses = losses * sample_weights
    scale, penalty = metric(features, labels)
    weight = head.weight.double() * scale.nan_to_num(posinf=0)
    return float(losses.mean() + l2 / 2 * ((weight @ penalty) * weight).sum())


def reference(features, labels, l2, sample_weights=None) -> SoftmaxHead:
    """scikit-learn's minimum, folded back by hand."""
    scale, penalty = metric(features, labels)
    root = torch.linalg.cholesky(penalty.inverse())
    mean = features.double().mean(dim=0)
    model = LogisticRegression(C=1 / (l2 * len(labels)), tol=1e-8, max_iter=20_000)
    weights = None if sample_weights is None else sample_weights.numpy()
    model.fit(((features.double() - mean) / scale @ root).numpy(), labels.numpy(), sample_weight=weights)
    weight = torch.from_numpy(model.coef_) @ root.T / scale
    return SoftmaxHead(weight=weight, bias=torch.from_numpy(model.intercept_) - weight @ mean)


@pytest.mark.parametrize(("rows", "features", "classes"), [(200, 30, 3), (60, 150, 4), (300, 10, 12)])
def test_reaches_the_minimum_that_scikit_learn_finds(rows, features, classes):
    x, y = blobs(rows, features, classes)
    l2s = [1.0, 0.1, 0.01, 0.001]
    for l2, head in zip(l2s, fit_path(x, y, classes=classes, l2s=l2s), strict=True):
        best = objective(reference(x, y, l2), x, y, l2)
        assert objective(head, x, y, l2) == pytest.approx(best, rel=2e-5)


@pytest.mark.parametrize("l2", [0.3, 0.003])
def test_sample_weights_agree_with_scikit_learn(l2):
    x, y = blobs(240, 12, 3, spread=0.5)
    keep = (y != 2) | (torch.arange(240) % 8 == 0)
    x, y = x[keep], y[keep]
    weights = ClassWeighting(balance=True).row_weights(y, 3)
    (head,) = fit_path(x, y, classes=3, l2s=[l2], sample_weights=weights)
    best = objective(reference(x, y, l2, weights), x, y, l2, weights)
    assert objective(head, x, y, l2, weights) == pytest.approx(best, rel=2e-5)


def test_gradient_vanishes_at_the_minimum():
    x, y = blobs(150, 40, 5)
    (head,) = fit_path(x, y, classes=5, l2s=[0.01])
    scale, penalty = metric(x, y)
    weight = (head.weight.double() * scale).requires_grad_()
    bias = (head.bias.double() + head.weight.double() @ x.double().mean(dim=0)).requires_grad_()
    z = (x.double() - x.double().mean(dim=0)) / scale
    loss = torch.nn.functional.cross_entropy(z @ weight.T + bias, y) + 0.005 * ((weight @ penalty) * weight).sum()
    gradients = torch.autograd.grad(loss, [weight, bias])
    assert max(float(g.abs().max()) for g in gradients) < 1e-3


def test_two_runs_are_bit_equal_and_a_warm_start_changes_nothing_that_matters():
    x, y = blobs(120, 40, 4)
    first = list(fit_path(x, y, classes=4, l2s=[1.0, 0.1, 0.01]))
    second = list(fit_path(x, y, classes=4, l2s=[1.0, 0.1, 0.01]))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.weight, other.weight)
        assert torch.equal(one.bias, other.bias)
    (cold,) = fit_path(x, y, classes=4, l2s=[0.01])
    assert objective(cold, x, y, 0.01) == pytest.approx(objective(first[-1], x, y, 0.01), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e3, 1e15])
def test_the_scale_of_all_features_and_the_offset_of_each_do_not_matter(scale):
    x, y = blobs(100, 6, 3)
    moved = (x + torch.tensor([0.0, 5.0, 0.0, -20.0, 0.0, 0.0])) * scale
    (plain,) = fit_path(x, y, classes=3, l2s=[0.1])
    (scaled,) = fit_path(moved, y, classes=3, l2s=[0.1])
    assert torch.allclose(plain.logits(x), scaled.logits(moved), atol=1e-2)


@pytest.mark.parametrize("scale", [1e-20, 1e3, 1e9, 1e15])
def test_a_feature_on_another_scale_does_not_hide_the_others(scale):
    x, y = blobs(100, 6, 3)
    stretched = x * torch.tensor([1.0, 1.0, scale, 1.0, 1.0, 1.0])
    (plain,) = fit_path(x, y, classes=3, l2s=[0.1])
    (head,) = fit_path(stretched, y, classes=3, l2s=[0.1])
    right = [float((logits.argmax(dim=1) == y).float().mean()) for logits in (plain.logits(x), head.logits(stretched))]
    assert right[1] > right[0] - 0.1


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -1e30])
def test_a_constant_feature_gets_no_weight(value):
    x, y = blobs(40, 5, 2)
    x[:, 2] = value
    (head,) = fit_path(x, y, classes=2, l2s=[0.01])
    assert torch.equal(head.weight[:, 2], torch.zeros(2))
    assert (head.logits(x).argmax(dim=1) == y).float().mean() > 0.9


def test_separable_data_stays_finite_under_a_weak_penalty():
    x, y = blobs(30, 100, 3, spread=20.0)
    for head in fit_path(x, y, classes=3, l2s=[1.0, 1e-2, 1e-4, 1e-6]):
        assert torch.isfinite(head.weight).all()
        assert torch.equal(head.logits(x).argmax(dim=1), y)


def test_a_class_without_a_row_is_unlikely_but_not_impossible():
    x, y = blobs(60, 8, 3)
    (head,) = fit_path(x, y, classes=5, l2s=[0.1])
    likelihood = torch.softmax(head.logits(x), dim=1)
    assert torch.isfinite(likelihood.log()).all()
    assert likelihood[:, 3:].max() < 1e-3
    assert likelihood[:, 3:].min() > 1e-8


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_a_single_row_predicts_itself(classes):
    (head,) = fit_path(torch.rand(1, 7), torch.tensor([classes - 1]), classes=classes, l2s=[0.1])
    assert head.logits(torch.rand(4, 7)).argmax(dim=1).tolist() == [classes - 1] * 4


def test_no_feature_at_all_gives_the_class_frequencies():
    x, y = torch.zeros(10, 4), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
    (head,) = fit_path(x, y, classes=3, l2s=[0.1])
    assert torch.softmax(head.logits(x), dim=1)[0].tolist() == pytest.approx([0.6, 0.3, 0.1], abs=1e-3)


def test_a_thousand_classes():
    x, y = blobs(2000, 20, 1000, spread=3.0)
    (head,) = fit_path(x, y, classes=1000, l2s=[1e-3])
    assert head.weight.shape == (1000, 20)
    assert (head.logits(x).argmax(dim=1) == y).float().mean() > 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_features_are_an_error_that_counts_them(bad):
    x, y = blobs(20, 6, 2)
    x[3, 4] = bad
    with pytest.raises(DataError, match="1 of 6 features"):
        next(iter(fit_path(x, y, classes=2, l2s=[0.1])))


def test_global_random_state_is_left_alone():
    x, y = blobs(20, 6, 2)
    before = torch.get_rng_state()
    list(fit_path(x, y, classes=2, l2s=[0.1]))
    assert torch.equal(before, torch.get_rng_state())


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 25),
    features=st.integers(1, 30),
    classes=st.integers(1, 6),
    exponent=st.integers(-12, 12),
    seed=st.integers(0, 2**16),
)
def test_any_small_data_gives_a_finite_head_no_worse_than_the_class_frequencies(
    rows, features, classes, exponent, seed
):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, features, generator=generator) * 10.0**exponent
    y = torch.randint(classes, (rows,), generator=generator)
    (head,) = fit_path(x, y, classes=classes, l2s=[0.03])
    logits = head.logits(x)
    assert torch.isfinite(logits).all()
    frequency = torch.bincount(y, minlength=classes) / rows
    entropy = float(-(frequency[frequency > 0].log() * frequency[frequency > 0]).sum())
    assert float(torch.nn.functional.cross_entropy(logits, y)) <= entropy + 1e-3


def test_balanced_weights_give_each_class_present_the_same_sum():
    labels = torch.tensor([0] * 6 + [2] * 2 + [3])
    weights = ClassWeighting(balance=True).row_weights(labels, 5)
    assert weights.dtype == torch.float32
    assert float(weights.mean()) == pytest.approx(1.0)
    assert [float(weights[labels == c].sum()) for c in (0, 2, 3)] == pytest.approx([3.0] * 3)


def test_logits_are_an_affine_map_of_raw_features():
    head = SoftmaxHead(weight=torch.tensor([[1.0, 2.0], [0.0, -1.0]]), bias=torch.tensor([0.5, 0.0]))
    assert np.array_equal(head.logits(torch.tensor([[3.0, 4.0]])).numpy(), [[11.5, -4.0]])


class Mapped:
    """Rows that are read a few at a time, as from a disk."""

    def __init__(self, features):
        self._features, self.shape, self.reads = features.numpy(), tuple(features.shape), 0

    def read(self, start, stop):
        self.reads += 1
        return self._features[start:stop].copy()


@pytest.mark.parametrize("l2", [1.0, 0.01])
@pytest.mark.parametrize("block", [16, 1000])
@pytest.mark.parametrize(("sample", "tolerance"), [(1000, 1e-4), (50, 0.01)])
def test_streamed_rows_give_the_same_minimum(monkeypatch, l2, block, sample, tolerance):
    """For several weightings at once, with a constant feature, and one that is constant but for rows left out.

    A sample of the rows gives nearly the same penalties.
    """
    monkeypatch.setattr(standardization, "BLOCK", block)
    monkeypatch.setattr(standardization, "SAMPLE", sample)
    x, y = blobs(150, 12, 4)
    x[:, 3] = 7
    x[:, 5] = torch.where(torch.arange(150) < 30, x[:, 5], 100.0)
    x[:, 7] += 4000
    weightings = [torch.ones(150), torch.rand(150, generator=torch.Generator().manual_seed(1))]
    weightings[1][:30] = 0
    weightings[1] /= weightings[1][30:].mean()
    (whole,) = fit_paths(x, y, weightings, classes=4, l2s=[l2])
    (streamed,) = fit_paths(Mapped(x), y, weightings, classes=4, l2s=[l2])
    for weights, expected, found in zip(weightings, whole, streamed, strict=True):
        rows = weights > 0
        best = objective(expected, x[rows], y[rows], l2, weights[rows])
        assert objective(found, x[rows], y[rows], l2, weights[rows]) == pytest.approx(best, rel=tolerance)
        torch.testing.assert_close(found.logits(x), expected.logits(x), rtol=200 * tolerance, atol=200 * tolerance)
        assert (found.weight[:, 3] == 0).all()
    assert (streamed[1].weight[:, 5] == 0).all()


def test_fits_that_are_streamed_together_share_each_pass(monkeypatch):
    monkeypatch.setattr(standardization, "BLOCK", 1000)
    x, y = blobs(150, 12, 4)
    alone, together = Mapped(x), Mapped(x)
    list(fit_paths(alone, y, [torch.ones(150)], classes=4, l2s=[0.1]))
    heads = list(fit_paths(together, y, [torch.ones(150)] * 3, classes=4, l2s=[0.1]))
    assert together.reads == alone.reads
    monkeypatch.setattr(softmax_regression, "STREAMED_VALUES", 1)
    one_by_one = list(fit_paths(Mapped(x), y, [torch.ones(150)] * 3, classes=4, l2s=[0.1]))
    for one, other in zip(heads[0], one_by_one[0], strict=True):
        torch.testing.assert_close(one.weight, other.weight)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_streamed_nan_feature_is_an_error(bad):
    x, y = blobs(60, 5, 3)
    x[40, 2] = bad
    with pytest.raises(DataError, match="1 of 5 features"):
        list(fit_paths(Mapped(x), y, [torch.ones(60)], classes=3, l2s=[1.0]))


def test_variances_of_few_images_hardly_count():
    """Features of unlike variance are scaled nearly alike by few images, and more by their own variance by many."""
    std = torch.tensor([0.5, 1.0, 2.0])
    ratios = [
        float(scale[2] / scale[0]) for scale in (scale_of(torch.zeros(3), std, count) for count in (10, 100, 400))
    ]
    assert ratios == sorted(ratios)
    assert ratios[0] < 1.1
    assert scale_of(torch.zeros(3), std, MANY_IMAGES).equal(scale_of(torch.zeros(3), std, 10 * MANY_IMAGES))
