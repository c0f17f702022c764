import numpy as np
import pytest
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_info

from tlcli.reports.projection import project_to_map


def clusters(count, width=40, classes=4):
    generator = np.random.default_rng(0)
    labels = np.arange(count) % classes
    return (8 * generator.normal(size=(classes, width))[labels] + generator.normal(size=(count, width))).astype(
        np.float32
    ), labels


def test_neighbors_stay_together():
    vectors, labels = clusters(200)
    positions = project_to_map(vectors)
    assert positions.shape == (200, 2)
    assert positions.dtype == np.float32
    assert positions.min() == 0
    assert positions.max() == 1
    nearest = NearestNeighbors(n_neighbors=4).fit(positions).kneighbors(return_distance=False)
    assert (labels[nearest] == labels[:, None]).mean() > 0.99


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9, 10, 11])
@pytest.mark.parametrize("width", [1, 2, 300])
def test_any_number_of_points_gets_finite_positions(count, width):
    positions = project_to_map(clusters(count, width)[0])
    assert positions.shape == (count, 2)
    assert np.isfinite(positions).all()
    assert ((positions >= 0) & (positions <= 1)).all()


def test_equal_features_share_one_position():
    assert np.ptp(project_to_map(np.ones((30, 5), np.float32)), axis=0).tolist() == [0, 0]


def test_small_maps_use_one_thread(monkeypatch):
    seen = []
    fit = TSNE.fit_transform

    def record(self, vectors):
        seen.append((self.n_jobs, {pool["num_threads"] for pool in threadpool_info()}))
        return fit(self, vectors)

    monkeypatch.setattr(TSNE, "fit_transform", record)
    before = threadpool_info()
    project_to_map(clusters(20)[0])
    assert seen == [(1, {1})]
    assert threadpool_info() == before


def test_the_map_is_deterministic():
    vectors, _ = clusters(60)
    np.testing.assert_array_equal(project_to_map(vectors), project_to_map(vectors))
