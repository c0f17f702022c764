"""Which training images candidates are compared on."""

import hashlib
from collections import Counter

import pytest

from tlcli.datasets.dataset import Dataset, Sample
from tlcli.training.choices import subset
from tlcli.training.choices.subset import choose_subset


class Reader:
    """Digests that depend on the last part of the path only; files named `lost` cannot be read."""

    def read(self, paths):
        names = [path.rpartition("/")[2] for path in paths]
        return [None if name.startswith("lost") else hashlib.sha256(name.encode()).digest() for name in names]


def dataset(counts, *, folder="a", split=None):
    samples = [
        Sample(path=f"{folder}/{label}-{number}", label=label, split=split)
        for label, count in enumerate(counts)
        for number in range(count)
    ]
    return Dataset(root=folder, samples=tuple(samples), classes=tuple("abcdef"[: len(counts)]), skipped={})


def chosen(data, seed=0):
    return choose_subset(data, Reader(), seed=seed)


def test_each_class_has_its_share_and_rare_ones_all_images():
    counts = Counter(chosen(dataset([4000, 1950, 7])).labels.tolist())
    assert counts[2] == 7
    assert counts[0] == pytest.approx(2 * counts[1], abs=10)
    assert sum(counts.values()) == pytest.approx(subset.IMAGES, abs=10)


def test_renaming_changes_nothing_and_the_seed_does():
    first, renamed = chosen(dataset([2000, 2000])), chosen(dataset([2000, 2000], folder="b"))
    assert first.digests == renamed.digests
    assert first.folds.tolist() == renamed.folds.tolist()
    assert first.digests != chosen(dataset([2000, 2000]), seed=1).digests


def test_adding_images_changes_little():
    before, after = chosen(dataset([2000, 2000])), chosen(dataset([2200, 2200]))
    assert len(set(before.digests) & set(after.digests)) > 0.85 * subset.IMAGES


def test_test_images_copies_and_unreadable_files_are_left_out():
    data = dataset([30, 30], split="train")
    copies = tuple(Sample(path=f"copy/0-{number}", label=0, split="train") for number in range(30))
    lost = (Sample(path="lost", label=0, split="train"),)
    more = Dataset(
        root="a",
        samples=(*data.samples, *copies, *lost, *dataset([9, 9], folder="t", split="test").samples),
        classes=data.classes,
        skipped={},
    )
    found = chosen(more)
    assert len(found.samples) == 60
    assert {sample.split for sample in found.samples} == {"train"}


def test_many_images_are_not_all_read(monkeypatch):
    monkeypatch.setattr(subset, "MOST_READ", 100)
    assert len(chosen(dataset([2000, 2000])).samples) == 100
