import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from tlcli.reports.projection import project


def clusters(count, width=40, classes=4):
    generator = np.random.default_rng(0)
    labels = np.arange(count) % classes
    return (8 * generator.normal(size=(classes, width))[labels] + generator.normal(size=(count, width))).astype(
        np.float32
    ), labels


def test_neighbors_stay_neighbors():
    vectors, labels = clusters(200)
    places = project(vectors)
    assert places.shape == (200, 2)
    assert places.dtype == np.float32
    assert places.min() == 0
    assert places.max() == 1
    nearest = NearestNeighbors(n_neighbors=4).fit(places).kneighbors(return_distance=False)
    assert (labels[nearest] == labels[:, None]).mean() > 0.99


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9, 10, 11])
@pytest.mark.parametrize("width", [1, 2, 300])
def test_however_few_there_are_each_has_a_finite_place(count, width):
    places = project(clusters(count, width)[0])
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    assert ((places >= 0) & (places <= 1)).all()


def test_equal_features_lie_in_one_place():
    assert np.ptp(project(np.ones((30, 5), np.float32)), axis=0).tolist() == [0, 0]


def test_the_same_features_give_the_same_map():
    vectors, _ = clusters(60)
    np.testing.assert_array_equal(project(vectors), project(vectors))
