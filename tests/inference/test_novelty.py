"""How untypical an image is, from scores whose distribution is known."""

import subprocess
import sys

import numpy as np
import pytest

from tlcli.inference.novelty import COMPARED_TOGETHER, FeatureBank, Novelty, embed, energies


def bank_of(vectors, directions=None):
    center = np.zeros(vectors.shape[1], np.float32)
    return FeatureBank(center=center, directions=directions, vectors=embed(vectors, center, directions))


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(1, 1, (300, 24)).astype(np.float32)


def novelty_with(known):
    bank = bank_of(np.ones((20, 4), np.float32))
    return Novelty(bank=bank, scale=np.ones(2), known=np.sort(np.asarray(known, np.float64)))


def test_novelty_is_the_share_of_known_images_that_look_more_typical():
    novelty = novelty_with(range(9))
    assert novelty.of_scores(np.array([-1.0, 0.0, 4.5, 8.0])).tolist() == [0.0, 0.0, 0.5, 0.8]


def test_novelty_rises_towards_1_beyond_all_known_images():
    found = novelty_with(range(99)).of_scores(np.array([98.0, 98.5, 110.0, 1000.0]))
    assert (np.diff(found) > 0).all()
    assert found[0] < found[1] > 0.99
    assert found[-1] == 1


@pytest.mark.parametrize("count", [1, 2, 5, 1000])
def test_novelty_is_in_range_with_few_or_equal_known_images(count):
    for known in (np.zeros(count), np.arange(count)):
        found = novelty_with(known).of_scores(np.array([-1e9, 0, 1e9]))
        assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_at_most_the_rate_of_known_images_is_flagged(rate):
    """The known images and the new ones come from one distribution; the share is averaged over many draws of both."""
    generator = np.random.default_rng(1)
    flagged = [
        (novelty_with(generator.gamma(2, size=499)).of_scores(generator.gamma(2, size=200)) > 1 - rate).mean()
        for _ in range(400)
    ]
    error = np.std(flagged) / np.sqrt(len(flagged))
    assert rate - 1 / 500 - 3 * error <= np.mean(flagged) <= rate + 3 * error


def test_distance_of_a_training_image_is_small_and_that_of_its_opposite_large(features):
    bank = bank_of(features)
    near, far = bank.distances(features[:1]), bank.distances(-features[:1])
    assert 0 < near < 1 < far < 2


def test_images_are_not_compared_with_their_own_group(features):
    """Ten copies of each image would otherwise be its nearest neighbors."""
    copies = np.tile(features[:30], (10, 1))
    groups = np.arange(300) % 30
    bank = bank_of(copies)
    assert bank.distances(copies).max() < 1e-6
    assert bank.distances(copies, (groups, groups)).min() > 0.01
    same = np.zeros(300, np.int64)
    assert np.isinf(bank.distances(copies, (same, same))).all()


def test_distances_do_not_depend_on_the_images_beside(features):
    bank, whole = bank_of(features), bank_of(features).distances(features)
    for size in (1, 3, COMPARED_TOGETHER, 100):
        parts = [bank.distances(features[start : start + size]) for start in range(0, len(features), size)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_what_a_projection_drops_makes_an_image_untypical():
    """Training images vary in one plane. A new image that leaves the plane is far from all of them."""
    plane = np.zeros((100, 5), np.float32)
    plane[:, :2] = np.random.default_rng(0).normal(0, 1, (100, 2))
    bank = bank_of(plane, directions=np.eye(5, 2, dtype=np.float32))
    outside = plane[:1] + 10 * np.eye(5, dtype=np.float32)[4:]
    assert bank.distances(plane[:1]) < 0.1
    assert bank.distances(outside) > 0.8


def test_energy_is_larger_the_less_any_class_fits():
    found = energies(np.array([[9, 0, 0], [1, 0, 0], [-9, -9, -9], [1e4, 0, 0]], np.float32))
    assert found[0] < found[1] < found[2]
    assert np.isfinite(found).all()


def test_the_file_keeps_everything(features):
    from safetensors.numpy import load

    directions = np.asfortranarray(np.linalg.qr(features[:24])[0][:, :6])  # safetensors ignores strides
    bank = bank_of(features, directions)
    arrays = load(Novelty(bank=bank, scale=np.ones(2), known=np.arange(3.0)).to_bytes())
    assert arrays.keys() == {"center", "vectors", "scale", "known", "directions"}
    assert arrays["vectors"].dtype == arrays["directions"].dtype == np.float16
    np.testing.assert_allclose(arrays["directions"], directions, atol=1e-3)
    np.testing.assert_allclose(arrays["vectors"], bank.vectors, atol=1e-3)


def test_novelty_needs_no_torch():
    code = "import sys, tlcli.inference.novelty, tlcli.inference.predictor; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
