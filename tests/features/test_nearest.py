"""The nearest images are those of brute force in float64, whatever the features, blocks, and places of the codes."""

import numpy as np
import pytest
from stored_features import digest

from tlcli.features import nearest
from tlcli.features.nearest import NearestImages
from tlcli.features.store import FeatureStore
from tlcli.features.stored_rows import StoredRows


def brute_force(features, query, most):
    """Return the nearest images and their cosines, without blocks or codes."""
    rows, other = features.astype(np.float64), query.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(other)
    cosines = np.divide(rows @ other, lengths, out=np.zeros(len(rows)), where=lengths > 0).round(12)
    order = sorted(range(len(rows)), key=lambda row: (-cosines[row], row))[:most]
    return order, cosines[order]


def index_of(features, **options):
    return NearestImages(lambda rows: features[rows], len(features), **options)


def check(index, features, queries, most):
    for query, found in zip(queries, index.search(queries, most), strict=True):
        images, cosines = brute_force(features, query, most)
        assert found.images.tolist() == images
        np.testing.assert_allclose(found.cosines, cosines, atol=1e-12)


def random_features(kind, count, width):
    generator = np.random.default_rng(7)
    values = generator.normal(size=(count, width))
    match kind:
        case "sparse":  # as after a ReLU: mostly zeros, a few large values
            values = np.maximum(values - 1, 0) ** 3
        case "clustered":
            values = values[generator.integers(0, 5, count)] + 0.01 * values
        case "alike":  # cosines differ in the sixth digit
            values = 1 + 1e-3 * values
        case "huge":
            values *= 1e30
        case "tiny":
            values *= 1e-40
        case "long and short":
            values *= 10.0 ** generator.integers(-20, 20, (count, 1))
    return values.astype(np.float32)


KINDS = ("normal", "sparse", "clustered", "alike", "huge", "tiny", "long and short")


@pytest.mark.parametrize("width", [1, 5, 64, 1280])
@pytest.mark.parametrize("kind", KINDS)
def test_results_are_those_of_brute_force(kind, width):
    features = random_features(kind, 340, width)
    index = index_of(features[:300])
    for most in (1, 10, 400):
        check(index, features[:300], features[280:340], most)


@pytest.mark.parametrize("in_memory", [0, 2**28])
@pytest.mark.parametrize("block", [1, 7, 64])
def test_neither_blocks_nor_the_place_of_the_codes_matter(block, in_memory, monkeypatch, tmp_path):
    for name in ("ENCODED", "SCANNED", "COMPARED", "QUERIES"):
        monkeypatch.setattr(nearest, name, block)
    monkeypatch.setattr(nearest, "IN_MEMORY", in_memory)
    features = random_features("clustered", 200, 33)
    added, released = [], []
    index = index_of(features, folder=tmp_path, advance=added.append, release=lambda: released.append(1))
    assert sum(added) == 200
    built = len(released)
    check(index, features, features[::9], 6)
    assert len(released) > built > 1
    assert list(tmp_path.iterdir()) == [], "the file of codes has no name"


def test_ties_are_in_the_order_of_the_images():
    features = np.tile(random_features("normal", 3, 20), (500, 1))
    (found,) = index_of(features).search(features[1:2] * 3, 700)
    assert found.images.tolist() == [*range(1, 1500, 3), *found.images[500:]]
    assert (found.cosines[:500] == found.cosines[0]).all()
    assert (np.diff(found.images[500:]) > 0).all()


def test_zeros_are_near_to_nothing():
    features = np.eye(4, dtype=np.float32)
    features[2] = 0
    found, of_zero = index_of(features).search(features[[0, 2]], 4)
    assert (found.images.tolist(), found.cosines.tolist()) == ([0, 1, 2, 3], [1, 0, 0, 0])
    assert (of_zero.images.tolist(), of_zero.cosines.tolist()) == ([0, 1, 2, 3], [0, 0, 0, 0])


@pytest.mark.parametrize("count", [0, 1])
def test_few_images(count):
    features = random_features("normal", 2, 8)
    for found in index_of(features[:count]).search(features, 3):
        assert found.images.tolist() == list(range(count))


def test_few_features_are_compared_exactly():
    features = random_features("normal", 20_000, 256)
    read = []
    index = NearestImages(lambda rows: read.append(len(rows)) or features[rows], len(features))
    read.clear()
    check(index, features, features[:4] + features[7:11], 10)
    assert sum(read) < 4 * 500


@pytest.mark.parametrize("on_disk", [False, True])
def test_stored_features_are_found_after_their_release(on_disk, tmp_path):
    features = random_features("normal", 90, 24)
    store = FeatureStore(tmp_path if on_disk else None, {"format": 1, "backbone": "tiny"}, (24,))
    for start in (0, 50):  # two parts
        with store.writing():
            for number in range(start, min(start + 50, 90)):
                store.add(digest(number), 0, features[number])
    order = np.random.default_rng(0).permutation(90)
    rows = StoredRows(FakeExtractor(store), [digest(number) for number in order], 0)
    index = NearestImages(rows.gather, 90, release=store.release)
    check(index, features[order], features[:5], 8)


class FakeExtractor:
    def __init__(self, store):
        self.plain, self.augmented = store, None
