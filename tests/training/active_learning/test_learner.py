"""What is labeled next and what is proposed, on drawn clusters of features."""

import numpy as np
import pytest

from tlcli.training.active_learning.learner import ActiveLearner
from tlcli.training.active_learning.proposals import COPY_CONFIDENCE

DIMENSIONS = 64


def blobs(clusters, each, *, spread=0.5, seed=0, dimensions=DIMENSIONS):
    """Return features of `clusters` clusters in random order, and the cluster of each image."""
    generator = np.random.default_rng(seed)
    centers = generator.normal(0, 2, (clusters, dimensions))
    cluster = generator.permutation(np.repeat(np.arange(clusters), each))
    features = centers[cluster] + generator.normal(0, spread, (len(cluster), dimensions))
    return features.astype(np.float32), cluster


def learner_of(features, seed=0):
    learner = ActiveLearner(features.shape[1], seed=seed)
    learner.add(np.arange(len(features)), features)
    return learner


def ids(choices):
    return [choice.id for choice in choices]


def label_some(learner, truth, count, classes, size=20):
    """Label `count` images that the learner selects, and return the labels and the choices."""
    labels, choices = {}, []
    while len(labels) < count:
        batch = learner.select(min(size, count - len(labels)))
        assert batch
        choices += batch
        labels |= {choice.id: int(truth[choice.id]) for choice in batch}
        learner.fit(labels, classes)
    return labels, choices


def test_the_first_images_cover_all_clusters():
    features, cluster = blobs(10, 30)
    choices = learner_of(features).select(10)
    assert {choice.source for choice in choices} == {"cluster"}
    assert sorted(cluster[ids(choices)]) == list(range(10))


def test_clusters_are_covered_although_some_are_rare():
    features, cluster = blobs(8, 100)
    kept = np.flatnonzero((cluster < 4) | (np.arange(len(cluster)) % 10 == 0))
    assert set(cluster[kept][ids(learner_of(features[kept]).select(24))]) == set(range(8))


def test_labeled_excluded_and_repeated_images_are_not_selected():
    features, cluster = blobs(5, 40)
    learner = learner_of(features)
    labels, choices = label_some(learner, cluster, 60, 5)
    assert len(set(ids(choices))) == 60
    skipped = set(ids(learner.select(20)))
    following = ids(learner.select(20, skipped))
    assert len(following) == 20
    assert not skipped & set(following)
    assert not set(labels) & set(following)


def test_uncertain_images_are_preferred():
    features, cluster = blobs(2, 200, spread=3)
    learner = learner_of(features)
    labels, _ = label_some(learner, cluster, 40, 2)
    uncertain = [choice.id for choice in learner.select(20) if choice.source == "uncertain"]
    others = np.setdiff1d(np.arange(len(features)), list(labels))
    assert learner.proposals(np.array(uncertain))[1].mean() < learner.proposals(others)[1].mean() - 0.05


def test_an_eighth_is_random_once_there_are_proposals():
    features, cluster = blobs(5, 100)
    _, choices = label_some(learner_of(features), cluster, 140, 5)
    assert {choice.source for choice in choices[:20]} == {"cluster"}
    assert sum(choice.source == "random" for choice in choices[20:]) == 15


def test_an_eighth_is_random_although_images_are_labeled_one_by_one():
    features, cluster = blobs(5, 40)
    _, choices = label_some(learner_of(features), cluster, 60, 5, size=1)
    assert 4 <= sum(choice.source == "random" for choice in choices) <= 9


def test_labels_of_random_images_do_not_influence_which_others_are_chosen():
    """Otherwise, heads fitted without a random image would miss the images that would have been chosen instead."""
    features, cluster = blobs(6, 60, spread=4)
    labels, choices = label_some(learner_of(features), cluster, 60, 6)
    at_random = [choice.id for choice in choices if choice.source == "random"]

    def chosen(changed):
        learner = learner_of(features)
        learner.fit(labels | {image: (labels[image] + 1) % 6 for image in changed}, 6, at_random)
        return [choice for choice in learner.select(24) if choice.source == "uncertain"]

    others = [image for image in labels if image not in at_random]
    assert chosen([]) == chosen(at_random)
    assert chosen([]) != chosen(others[: len(at_random)])


def test_random_images_are_uniform_over_distinct_images():
    # Half of the images are copies of one image; the others are of two classes, of 20 and 80 images.
    features, _ = blobs(100, 1, spread=0)
    features = np.concatenate([features, np.repeat(features[:1], 100, axis=0)])
    features += np.random.default_rng(1).normal(0, 1e-3, features.shape).astype(np.float32)
    truth = np.r_[np.arange(100) < 20, np.ones(100, bool)]
    drawn = []
    for seed in range(60):
        learner = learner_of(features, seed)
        learner.fit({20: 0, 21: 1}, 2)
        drawn += [choice.id for choice in learner.select(25) if choice.source == "random"]
    assert len(drawn) >= 150
    assert 0.1 < truth[drawn].mean() < 0.3


def test_near_copies_of_labeled_images_get_their_label_and_are_not_selected():
    features, cluster = blobs(4, 50, spread=1)
    copies = features[:100] * 1.01 + np.random.default_rng(1).normal(0, 0.01, (100, DIMENSIONS)).astype(np.float32)
    learner = learner_of(np.concatenate([features, copies]))
    labels = {number: int(cluster[number]) for number in range(100)}
    learner.fit(labels, 4)
    classes, confidences = learner.proposals(np.arange(200, 300))
    assert (classes == cluster[:100]).all()
    assert (confidences >= COPY_CONFIDENCE).all()
    assert max(ids(learner.select(100))) < 200


def test_near_copies_are_known_from_the_first_label_on():
    features, _ = blobs(1, 50)
    learner = learner_of(np.concatenate([features, features[:1]]))
    learner.fit({0: 2}, 3)
    classes, confidences = learner.proposals(np.array([50, 1]))
    assert classes.tolist() == [2, -1]
    assert confidences[0] >= COPY_CONFIDENCE
    assert confidences[1] == 0
    assert 50 not in ids(learner.select(50))
    learner.fit({}, 3)  # the label was undone
    assert learner.proposals(np.array([50]))[1] == 0


def test_images_of_one_selection_are_distinct():
    features, _ = blobs(1, 10)
    learner = learner_of(np.repeat(features, 3, axis=0))
    assert sorted(np.array(ids(learner.select(30))) // 3) == list(range(10))


def test_same_calls_same_results():
    features, cluster = blobs(6, 60, spread=3)
    runs = [label_some(learner_of(features), cluster, 80, 6)[1] for _ in range(2)]
    assert runs[0] == runs[1]
    other = label_some(learner_of(features, seed=1), cluster, 80, 6)[1]
    assert [choice for choice in other if choice.source == "random"] != [
        choice for choice in runs[0] if choice.source == "random"
    ]


def test_images_may_be_added_while_labeling():
    features, cluster = blobs(5, 60)
    learner = ActiveLearner(DIMENSIONS)
    assert learner.select(10) == []
    learner.fit({}, 5)
    order = np.random.default_rng(0).permutation(len(features))
    labels = {}
    for start in range(0, len(order), 50):
        some = order[start : start + 50]
        learner.add(some, features[some])
        learner.add(some[:5], features[some[:5]])  # known already
        labels |= {choice.id: int(cluster[choice.id]) for choice in learner.select(5)}
        learner.fit(labels, 5)
        assert set(labels) <= set(order[: start + 50].tolist())
    classes, confidences = learner.proposals(np.arange(len(features) + 1))
    assert (classes[:-1] == cluster).mean() > 0.95
    assert classes[-1] == -1
    assert confidences[-1] == 0


def test_labels_may_come_before_features():
    features, cluster = blobs(2, 20)
    learner = ActiveLearner(DIMENSIONS)
    labels = {number: int(cluster[number]) for number in range(10)}
    learner.fit(labels, 2)
    learner.add(np.arange(40), features)
    assert not set(ids(learner.select(40))) & set(labels)
    learner.fit(labels, 2)
    assert (learner.proposals(np.arange(40))[0] == cluster).all()


def test_one_image():
    learner = learner_of(np.ones((1, DIMENSIONS), np.float32))
    assert ids(learner.select(24)) == [0]
    learner.fit({0: 0}, 2)
    assert learner.select(24) == []
    assert learner.like(0, 5) == []


def test_identical_images_need_one_label():
    learner = learner_of(np.full((30, DIMENSIONS), 0.1, np.float32))
    (choice,) = learner.select(24)
    learner.fit({choice.id: 1}, 2)
    assert learner.select(24) == []
    assert set(learner.proposals(np.arange(30))[0][np.arange(30) != choice.id]) == {1}
    assert len(learner.like(choice.id, 40)) == 29


def test_a_single_labeled_class_gives_no_model():
    features, _ = blobs(3, 30)
    learner = learner_of(features)
    learner.fit({0: 1, 1: 1, 2: 1}, 3)
    assert (learner.proposals(np.arange(90))[1] == 0).all()
    assert {choice.source for choice in learner.select(24)} == {"cluster"}


def test_classes_without_labels_are_not_proposed():
    features, cluster = blobs(3, 30)
    learner = learner_of(features)
    learner.fit({number: 2 * int(cluster[number]) for number in range(60)}, 7)
    assert set(learner.proposals(np.arange(90))[0]) == {0, 2, 4}


def test_images_of_none_of_the_classes():
    features, cluster = blobs(3, 40)
    learner = learner_of(features)
    learner.fit({number: None if cluster[number] == 2 else int(cluster[number]) for number in range(30)}, 2)
    classes, confidences = learner.proposals(np.arange(120))
    assert (classes == np.where(cluster == 2, -1, cluster)).all()
    assert (confidences > 0).all()
    known, _, targets = learner.training_data()
    assert len(known) == len(targets) == (cluster[:30] < 2).sum()


def test_three_hundred_classes():
    features, cluster = blobs(300, 8)
    learner = learner_of(features)
    label_some(learner, cluster, 600, 300, size=100)
    assert (learner.proposals(np.arange(len(features)))[0] == cluster).mean() > 0.9


@pytest.mark.parametrize("scale", [2.0**-66, 2.0**66])
def test_features_of_any_scale(scale):
    features, cluster = blobs(4, 30)
    choices = label_some(learner_of(features), cluster, 40, 4)[1]
    assert label_some(learner_of(features * np.float32(scale)), cluster, 40, 4)[1] == choices


@pytest.mark.parametrize("dimensions", [2, 3])
def test_few_dimensions(dimensions):
    features, cluster = blobs(3, 30, dimensions=dimensions)
    labels, _ = label_some(learner_of(features), cluster, 20, 3, size=5)
    assert len(labels) == 20


def test_like_and_of_class():
    features, cluster = blobs(4, 30)
    learner = learner_of(features)
    labels, _ = label_some(learner, cluster, 20, 4)
    similar = learner.like(7, 15, {8})
    assert len(similar) == 15
    assert (cluster[similar] == cluster[7]).all()
    assert not set(similar) & (set(labels) | {7, 8})
    proposed = learner.of_class(2, 10)
    assert (cluster[proposed] == 2).all()
    assert not set(proposed) & set(labels)
    confidences = learner.proposals(np.array(proposed))[1]
    assert (np.diff(confidences) >= 0).all()
    assert set(learner.of_class(2, 3)) == set(proposed[-3:])
