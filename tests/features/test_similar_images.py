"""Frames of one object are grouped, unrelated images are not, and groups do not depend on order or scale."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tlcli.features import class_residuals, look_alikes
from tlcli.features.similar_images import find_similar_images

CLASSES, DIMENSIONS = 3, 200


def unrelated(count, seed=0):
    """Features of images of three classes, each different from all others: float32 [count, 200], and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    means = 2 * np.random.default_rng(99).normal(size=(CLASSES, DIMENSIONS))
    features = rng.normal(size=(count, DIMENSIONS)) + means[labels]
    return features.astype(np.float32), labels


def bursts(objects, frames, noise=0.4, seed=0):
    """Features of several frames of each object, their labels, and their objects."""
    features, labels = unrelated(objects, seed)
    rng = np.random.default_rng(seed + 1)
    repeated = features.repeat(frames, axis=0)
    shown = repeated + noise * rng.normal(size=repeated.shape)
    return shown.astype(np.float32), labels.repeat(frames), np.arange(objects).repeat(frames)


def digits(count, frames=1, noise=0.1):
    """Random features of handwritten digits, which vary in few ways, and frames by noise; labels; and objects."""
    rng = np.random.default_rng(0)
    data = load_digits()
    pixels = data.data[:count].repeat(frames, axis=0) / 16
    hidden = pixels + noise * rng.normal(size=pixels.shape)
    for width in 512, 512:
        weights = rng.normal(size=(hidden.shape[1], width)) / np.sqrt(hidden.shape[1])
        hidden = np.maximum(hidden @ weights + 0.3 * rng.normal(size=width), 0)
    return hidden.astype(np.float32), data.target[:count].repeat(frames), np.arange(count).repeat(frames)


def find(features, labels):
    return find_similar_images(lambda start, stop: features[start:stop].copy(), labels)


def groups(features, labels):
    return find(features, labels).groups(np.ones(len(labels), dtype=bool))


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100, 1000])
def test_unrelated_images_have_no_groups(count):
    assert groups(*unrelated(count)) == []


@pytest.mark.parametrize("frames", [2, 7, 25, 60])
def test_frames_of_one_object_form_a_group(frames):
    features, labels, objects = bursts(40, frames)
    found = groups(features, labels)
    assert sorted(map(sorted, found)) == [np.flatnonzero(objects == number).tolist() for number in range(40)]


def test_frames_that_differ_much_are_grouped_by_the_means_of_their_clusters():
    """With a cosine of about 0.4 to each other, some frames are not alike enough to be linked."""
    features, labels, objects = bursts(40, 15, noise=1.2)
    found = groups(features, labels)
    assert sorted(map(sorted, found)) == [np.flatnonzero(objects == number).tolist() for number in range(40)]


@pytest.mark.parametrize("count", [100, 200, 500, 1797])
def test_look_alikes_are_not_frames_of_one_object(count):
    features, labels, _ = digits(count)
    found = find(features, labels)
    assert not found.bursts
    assert len(np.unique(found.pairs)) < 0.1 * count


def test_frames_of_look_alikes_stay_together():
    features, labels, objects = digits(200, 5, noise=0.02)
    found = groups(features, labels)
    assert max(map(len, found)) <= 50
    whole = {number for group in found for number in set(objects[group]) if (objects[group] == number).sum() == 5}
    assert len(whole) >= 180


def test_copies_of_some_images_do_not_make_others_bursts():
    features, labels = unrelated(600)
    copies = find(np.concatenate([features, features[:100]]), np.concatenate([labels, labels[:100]]))
    assert not copies.bursts
    assert sorted(map(sorted, copies.groups(np.ones(700, dtype=bool)))) == [[row, 600 + row] for row in range(100)]


def test_named_groups_are_joined_only_by_certain_links():
    features, labels, _ = bursts(40, 6, noise=0.9)
    loose = find_similar_images(lambda start, stop: features[start:stop].copy(), labels, has_groups=True)
    assert loose.bursts
    assert len(loose.pairs) < len(find(features, labels).pairs)


def test_a_few_bursts_among_unrelated_images_are_found():
    plain, plain_labels = unrelated(500)
    burst, burst_labels, objects = bursts(5, 4, noise=0.2, seed=9)
    found = groups(np.concatenate([plain, burst]), np.concatenate([plain_labels, burst_labels]))
    assert sorted(map(sorted, found)) == [(500 + np.flatnonzero(objects == number)).tolist() for number in range(5)]


def test_groups_depend_on_neither_order_nor_scale():
    features, labels, _ = bursts(60, 5)
    order = np.random.default_rng(3).permutation(len(labels))
    scaled = features * np.random.default_rng(4).uniform(0.1, 10, DIMENSIONS).astype(np.float32)
    expected = {frozenset(group) for group in groups(features, labels)}
    assert {frozenset(order[group].tolist()) for group in groups(features[order], labels[order])} == expected
    assert {frozenset(group) for group in groups(scaled, labels)} == expected


def test_only_images_among_the_given_ones_are_grouped():
    features, labels, objects = bursts(40, 3)
    among = np.arange(len(labels)) % 3 > 0
    found = find(features, labels).groups(among)
    assert sorted(map(sorted, found)) == [np.flatnonzero((objects == n) & among).tolist() for n in range(40)]


def test_near_copies_of_training_images_are_named():
    features, labels, _ = bursts(40, 3)
    train = np.ones(len(labels), dtype=bool)
    train[[0, 1, 2, 5]] = False  # all frames of the first object, and one of the second
    assert find(features, labels).near_copies(train).tolist() == [5]


def test_features_with_few_dimensions_group_nothing():
    rng = np.random.default_rng(0)
    assert groups(rng.normal(size=(300, 3)).astype(np.float32), rng.integers(0, 3, 300)) == []


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_features_group_nothing(value):
    assert groups(np.full((50, 20), value, np.float32), np.arange(50) % 2) == []


def test_a_giant_group_is_divided_at_its_weakest_links():
    """A chain: each image is similar to the next, so all of them are connected."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(120, DIMENSIONS)).cumsum(axis=0)
    chain = np.concatenate([steps, rng.normal(size=(20, DIMENSIONS)) * 8]).astype(np.float32)
    found = groups(chain, np.zeros(140, np.int64))
    assert found
    assert max(map(len, found)) <= 70


def test_large_classes_are_compared_in_cells(monkeypatch):
    features, labels, objects = bursts(300, 4)
    monkeypatch.setattr(look_alikes, "CELL", 48)
    monkeypatch.setattr(look_alikes, "COMPARED", 96)
    found = groups(features, labels)
    whole = sum(len({objects[row] for row in group}) == 1 and len(group) == 4 for group in found)
    assert whole >= 270


def test_features_of_many_images_are_projected(monkeypatch):
    monkeypatch.setattr(class_residuals, "SAMPLE", 512)
    monkeypatch.setattr(class_residuals, "PROJECTED", 96)
    features, labels, objects = bursts(300, 4)
    found = groups(features, labels)
    assert sorted(map(sorted, found)) == [np.flatnonzero(objects == number).tolist() for number in range(300)]
    assert groups(*unrelated(1200)) == []


def test_nan_features_are_left_to_the_head_to_reject():
    features, labels = unrelated(30)
    features[3] = np.nan
    assert groups(features, labels) == []
