"""Properties of splits and folds, for arbitrary images."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcli.datasets.dataset import Dataset, Sample
from tlcli.datasets.splits import (
    FEW_IMAGES,
    SMALL_CLASS,
    assign_folds,
    assign_splits,
    fold_count,
    fold_method,
    group_keys,
    hold_out,
    split_dataset,
    uniform_hash,
)
from tlcli.errors import DataError

fractions = st.floats(0.05, 0.95)
seeds = st.integers(0, 2**31)


def digest(number):
    return hashlib.sha256(str(number).encode()).digest()


@st.composite
def collections(draw, *, duplicates=True, least=0, most=40):
    """Draw (samples, digests): three classes, some images in groups, some identical."""
    count = draw(st.integers(least, most))
    groups = st.one_of(st.none(), st.sampled_from(["p", "q", "r", digest(0).hex(), "\udce9"]))
    samples = [Sample(path=str(i), label=draw(st.integers(0, 2)), group=draw(groups)) for i in range(count)]
    numbers = [draw(st.integers(0, 30)) if duplicates else i for i in range(count)]
    return samples, [digest(number) for number in numbers]


def held_out(samples, digests, *, seed=0, fraction=0.2):
    return hold_out(samples, group_keys(samples, digests), seed=seed, fraction=fraction)


@given(collections(), seeds, fractions)
def test_identical_images_and_groups_stay_together(images, seed, fraction):
    samples, digests = images
    out = held_out(samples, digests, seed=seed, fraction=fraction)
    labels = [sample.label for sample in samples]
    fold = np.array(assign_folds(group_keys(samples, digests), labels, seed=seed)).T
    for i, one in enumerate(samples):
        for j, two in enumerate(samples[:i]):
            if digests[i] == digests[j] or (one.group is not None and one.group == two.group):
                assert out[i] == out[j]
                assert (fold[i] == fold[j]).all()


@given(collections())
def test_unrelated_images_are_split_independently(images):
    samples, digests = images
    alone = [
        index for index, sample in enumerate(samples) if sample.group is None and Counter(digests)[digests[index]] == 1
    ]
    keys = group_keys(samples, digests)
    assert len({keys[index] for index in alone}) == len(alone)


@given(st.data(), seeds, fractions)
def test_adding_images_does_not_move_others(data, seed, fraction):
    samples, digests = data.draw(collections(duplicates=False, least=50, most=70))
    count = data.draw(st.integers(30, 50))
    # Start with large classes, because a class that reaches SMALL_CLASS images is split from then on, of which some
    # images are not held out: one of them always stays in train.
    keys = group_keys(samples[:count], digests[:count])
    trained = {
        sample.label for sample, key in zip(samples[:count], keys, strict=True) if uniform_hash(seed, key) >= fraction
    }
    counts = Counter(sample.label for sample in samples[:count])
    large = [label for label in trained if counts[label] >= SMALL_CLASS]
    kept = [index for index, sample in enumerate(samples) if sample.label in large]
    samples, digests = [samples[index] for index in kept], [digests[index] for index in kept]
    before = sum(index < count for index in kept)
    order = data.draw(st.permutations(range(len(samples))))
    everything = held_out(
        [samples[index] for index in order], [digests[index] for index in order], seed=seed, fraction=fraction
    )
    now = dict(zip(order, everything, strict=True))
    then = held_out(samples[:before], digests[:before], seed=seed, fraction=fraction)
    assert then == [now[index] for index in range(before)]


@given(collections(), seeds, fractions)
def test_small_classes_stay_in_train_with_their_groups(images, seed, fraction):
    samples, digests = images
    out = held_out(samples, digests, seed=seed, fraction=fraction)
    size = Counter(sample.label for sample in samples)
    for index, sample in enumerate(samples):
        if size[sample.label] < SMALL_CLASS:
            assert not out[index]
            assert not any(o for o, d in zip(out, digests, strict=True) if d == digests[index])


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_fraction_is_met_approximately(fraction, seed):
    samples = [Sample(path="", label=0)] * 4000
    share = np.mean(held_out(samples, [digest(i) for i in range(4000)], seed=seed, fraction=fraction))
    assert abs(share - fraction) < 0.035  # at least four standard errors


def test_a_larger_fraction_holds_out_a_superset():
    samples, digests = [Sample(path="", label=0)] * 500, [digest(i) for i in range(500)]
    small, large = (held_out(samples, digests, fraction=fraction) for fraction in (0.1, 0.3))
    assert sum(small) < sum(large)
    assert all(after for before, after in zip(small, large, strict=True) if before)


def test_another_seed_gives_another_split():
    samples, digests = [Sample(path="", label=0)] * 500, [digest(i) for i in range(500)]
    assert held_out(samples, digests, seed=0) != held_out(samples, digests, seed=1)


def test_the_split_of_a_group_depends_on_its_name_only():
    one = [Sample(path="", label=0, group=f"patient {i}") for i in range(200)]
    assert held_out(one, [digest(i) for i in range(200)]) == held_out(one, [digest(-i) for i in range(200)])


def test_similar_images_stay_together_and_adding_others_moves_none():
    samples, digests = [Sample(path="", label=index % 2) for index in range(300)], [digest(i) for i in range(300)]
    similar = [list(range(start, start + 6)) for start in range(0, 120, 6)]
    before = assign_splits(samples, digests, fraction=0.3, seed=1, similar=similar)
    for group in similar:
        assert len({before[index].split for index in group}) == 1
    assert {sample.split for sample in before} == {"train", "validation"}
    more = [*samples, *(Sample(path="", label=0) for _ in range(40))]
    more_digests = [*digests, *(digest(-i) for i in range(1, 41))]
    after = assign_splits(more, more_digests, fraction=0.3, seed=1, similar=[*similar, [300, 301, 302]])
    assert [sample.split for sample in after[:300]] == [sample.split for sample in before]


def test_similar_images_are_named_by_their_group_or_else_by_their_smallest_digest():
    samples = [
        Sample(path=name, label=0, group=group) for name, group in zip("abcd", (None, None, "p", None), strict=True)
    ]
    digests = [digest(number) for number in range(4)]
    assert group_keys(samples, digests, [[3, 1]]) == [
        digests[0].hex(),
        min(digests[1], digests[3]).hex(),
        "p",
        min(digests[1], digests[3]).hex(),
    ]
    assert group_keys(samples, digests, [[3, 1], [1, 2]]) == [digests[0].hex(), "p", "p", "p"]


def test_a_class_with_one_group_stays_in_train():
    samples = [Sample(path="", label=index // 40) for index in range(80)]
    digests = [digest(index) for index in range(80)]
    for seed in range(20):
        found = assign_splits(samples, digests, fraction=0.5, seed=seed, similar=[range(40)])
        assert {sample.split for sample in found[:40]} == {"train"}


def test_identical_images_merge_their_groups():
    samples = [Sample(path=name, label=0, group=group) for name, group in zip("abcd", "ppqq", strict=True)]
    keys = group_keys(samples, [digest(number) for number in (1, 2, 2, 3)])
    assert len(set(keys)) == 1


def test_folds_have_similar_sizes():
    (folds,) = assign_folds([digest(i).hex() for i in range(5000)], [0] * 5000, seed=0)
    counts = Counter(folds)
    assert sorted(counts) == list(range(5))
    assert all(abs(count - 1000) < 120 for count in counts.values())


def test_adding_images_moves_no_others_to_another_fold():
    keys = [digest(number).hex() for number in range(900)]
    (before,) = assign_folds(keys[:700], [0] * 700, seed=3)
    (after,) = assign_folds(keys[::-1], [0] * 900, seed=3)
    assert after[::-1][:700] == before


@pytest.mark.parametrize(
    ("images", "groups", "classes", "method"),
    [
        (2, 2, 2, "leave-one-out"),
        (30, 30, 10, "10 x 3-fold"),
        (30, 30, 1, "20-fold"),
        (100, 100, 10, "3 x 10-fold"),
        (100, 20, 10, "15 x 2-fold"),
        (100, 4, 10, "leave-one-out"),
        (300, 300, 10, "20-fold"),
        (1000, 900, 10, "10-fold"),
        (1501, 1501, 10, "5-fold"),
        (3000, 3, 10, "leave-one-out"),
    ],
)
def test_fewer_images_have_more_folds_of_which_each_holds_out_as_many_of_each_class(images, groups, classes, method):
    keys = [str(number % groups) for number in range(images)]
    labels = [number % classes for number in range(images)]
    divisions = assign_folds(keys, labels, seed=0)
    assert fold_method(keys, labels) == method
    assert len({tuple(folds) for folds in divisions}) == len(divisions)
    assert all(set(folds) == set(range(fold_count(keys, labels))) for folds in divisions)
    if method == "leave-one-out":
        (folds,) = divisions
        assert len(set(zip(keys, folds, strict=True))) == len(set(folds)) == groups
    if images == groups <= FEW_IMAGES:
        for counts in (Counter(zip(labels, folds, strict=True)) for folds in divisions):
            sizes = [[counts[label, fold] for fold in set(divisions[0])] for label in set(labels)]
            assert all(max(size) - min(size) <= 1 for size in sizes)


# split_dataset


def dataset(*splits_and_sizes):
    """Return a dataset of two classes, with the given number of images of each class in each split."""
    samples = [
        Sample(path=f"{split}/{label}/{i}", label=label, split=split)
        for split, size in splits_and_sizes
        for label in (0, 1)
        for i in range(size)
    ]
    whole = Dataset(root=Path("photos"), samples=tuple(samples), classes=("cat", "dog"), skipped={})
    return whole, [digest(sample.path) for sample in samples]


def test_images_without_a_split_are_held_out_by_fraction():
    data, digests = dataset((None, 100))
    splits = split_dataset(data, digests, {}, fraction=0.2, seed=0)
    assert not splits.cross_validated
    assert splits.digests == tuple(digests)
    assert len(splits.indices("train")) + len(splits.indices("validation")) == 200
    assert 20 <= len(splits.indices("validation")) <= 60


def test_the_splits_of_data_are_kept():
    data, digests = dataset(("train", 20), ("validation", 5), ("test", 7))
    splits = split_dataset(data, digests, {}, fraction=None, seed=0)
    assert [sample.split for sample in splits.samples] == [sample.split for sample in data.samples]
    assert not splits.cross_validated


def test_only_training_images_are_held_out():
    data, digests = dataset(("train", 100), ("test", 100))
    splits = split_dataset(data, digests, {}, fraction=0.3, seed=0)
    assert len(splits.indices("test")) == 200
    assert splits.indices("validation")
    assert all(sample.path.startswith("test") for sample in splits.samples if sample.split == "test")


def test_without_fraction_and_validation_folds_are_used():
    splits = split_dataset(*dataset((None, 5)), {}, fraction=None, seed=0)
    assert splits.cross_validated
    assert len(splits.indices("train")) == 10


def test_unusable_images_are_removed_and_do_not_move_others():
    data, digests = dataset((None, 60))
    whole = split_dataset(data, digests, {}, fraction=0.2, seed=0)
    unread = [None if index == 3 else digest for index, digest in enumerate(digests)]
    part = split_dataset(data, unread, {7: "damaged", 90: "damaged"}, fraction=0.2, seed=0)
    left = [sample for index, sample in enumerate(whole.samples) if index not in {3, 7, 90}]
    assert list(part.samples) == left
    assert part.digests == tuple(digest for index, digest in enumerate(digests) if index not in {3, 7, 90})


def test_a_class_without_a_usable_image():
    data, digests = dataset((None, 12))
    with pytest.raises(DataError, match=r"class 'dog' has no usable image .*: damaged; .*; \.\.\."):
        split_dataset(data, digests, dict.fromkeys(range(12, 24), "damaged"), fraction=0.2, seed=0)


def test_if_no_image_can_be_used_the_first_three_reasons_are_given():
    data, digests = dataset((None, 2))
    failed = {index: f"reason {index}" for index in range(4)}
    with pytest.raises(DataError, match=r"none of the 4 images .*: reason 0; .*: reason 1; .*: reason 2; \.\.\.$"):
        split_dataset(data, [None, *digests[1:]], failed, fraction=None, seed=0)


def test_nothing_held_out():
    with pytest.raises(DataError, match="classes with fewer than 10 images stay in train"):
        split_dataset(*dataset((None, 5)), {}, fraction=0.2, seed=0)


def test_the_same_samples_split_the_same_way_in_any_order():
    data, digests = dataset((None, 40))
    samples = [replace(sample, group=str(index % 7)) for index, sample in enumerate(data.samples)]
    there = assign_splits(samples, digests, fraction=0.4, seed=5)
    back = assign_splits(samples[::-1], digests[::-1], fraction=0.4, seed=5)
    assert there == back[::-1]
