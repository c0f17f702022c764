"""Nearest neighbors do not depend on blocks."""

import numpy as np
import pytest

from tlcli.features import neighbors
from tlcli.features.neighbors import nearest_pairs


def brute_force(features, least, most):
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    pairs = set()
    for row, values in enumerate(cosines):
        for other in np.argsort(-values)[:most].tolist():
            if values[other] >= least:
                pairs.add((min(row, other), max(row, other)))
    return sorted(pairs)


@pytest.mark.parametrize("block", [7, 16, 4096])
@pytest.mark.parametrize("most", [1, 3])
def test_blocks_match_brute_force(block, most, monkeypatch):
    monkeypatch.setattr(neighbors, "BLOCK", block)
    features = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    done = []
    pairs = nearest_pairs(lambda start, stop: features[start:stop], 50, least=0.6, most=most, progress=done.append)
    assert [tuple(pair) for pair in pairs.tolist()] == brute_force(features, 0.6, most)
    assert len(pairs) > 5
    assert sum(done) == 50


def test_identical_images_give_a_limited_number_of_pairs():
    features = np.ones((300, 4), np.float32)
    pairs = nearest_pairs(lambda start, stop: features[start:stop], 300, least=0.9, most=8)
    assert 300 * 8 / 2 <= len(pairs) <= 300 * 8


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_give_no_pairs(count):
    features = np.ones((count, 4), np.float32)
    assert nearest_pairs(lambda start, stop: features[start:stop], count, least=0.9, most=8).shape == (0, 2)
