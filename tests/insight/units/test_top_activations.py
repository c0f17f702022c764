"""The streaming top nine equals sorting all images at once."""

import numpy as np
import pytest

from tlcli.insight.units.top_activations import TopActivations


@pytest.mark.parametrize("batch", [1, 4, 7, 100])
def test_batches_give_the_same_result_as_all_images_at_once(batch):
    generator = np.random.default_rng(0)
    values = np.round(generator.normal(size=(100, 6)), 1).astype(np.float32)  # with ties
    indices = np.arange(100, dtype=np.int64) * 3
    top = TopActivations(6)
    for start in range(0, 100, batch):
        top.update(values[start : start + batch], indices[start : start + batch])
    order = np.argsort(-values, axis=0, kind="stable")[:9].T
    assert (top.images == indices[order]).all()
    assert (top.values == np.take_along_axis(values.T, order, axis=1)).all()
    assert top.mean == pytest.approx(values.mean(axis=0), abs=1e-6)
    assert top.deviation == pytest.approx(values.astype(float).std(axis=0), abs=1e-6)


def test_selectivity_matches_manual_values_and_omits_dead_units():
    values = np.zeros((100, 4), np.float32)
    values[:9, 0] = 1  # active for nine
    values[:50, 1] = 1  # active for half of them
    values[:, 2] = 5  # dead
    values[:50, 3] = 1000
    top = TopActivations(4)
    top.update(values, np.arange(100))
    scores = top.selectivity()
    assert scores[0] == pytest.approx((1 - 0.09) / np.sqrt(0.09 * 0.91))
    assert scores[1] == pytest.approx(scores[3]) == pytest.approx(1.0)  # independent of scale
    assert np.isnan(scores[2])
    assert top.most_selective(9) == [0, 1, 3]
    assert top.most_selective(1) == [0]


def test_memory_does_not_grow_with_the_number_of_images():
    top = TopActivations(5)
    sizes = set()
    for start in range(0, 3000, 100):
        values = np.random.default_rng(start).normal(size=(100, 5)).astype(np.float32)
        top.update(values, np.arange(start, start + 100))
        sizes.add((top.values.nbytes, top.images.nbytes, top.values.base is None))
    assert len(sizes) == 1


def test_fewer_images_than_top_k():
    top = TopActivations(2)
    top.update(np.array([[1, 2], [3, 1]], np.float32), np.array([4, 7]))
    assert top.images[:, :3].tolist() == [[7, 4, -1], [4, 7, -1]]
    assert np.isfinite(top.selectivity()).all()
