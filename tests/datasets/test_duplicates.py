"""Byte-identical images, and the notes and warnings about a dataset."""

from pathlib import Path

from tlcli.datasets.dataset import Dataset, Sample
from tlcli.datasets.descriptions import describe_balance, describe_dataset, describe_duplicates, describe_failures
from tlcli.datasets.duplicates import find_duplicates
from tlcli.datasets.splits import SplitDataset

SAMPLES = [
    Sample(path="a/1", label=0, split="train"),
    Sample(path="a/2", label=0, split="train"),
    Sample(path="b/1", label=1, split="train"),
    Sample(path="b/2", label=1, split="test"),
    Sample(path="b/3", label=1, split="train"),
]


def test_find_duplicates():
    found = find_duplicates(SAMPLES, [b"x", b"x", b"x", b"y", b"y"])
    assert found.extra == 3
    assert found.across_classes == (("a/1", "a/2", "b/1"),)
    assert found.across_splits == (("b/2", "b/3"),)


def test_unreadable_images_are_not_duplicates():
    found = find_duplicates(SAMPLES, [None, None, None, b"y", b"z"])
    assert (found.extra, found.across_classes, found.across_splits) == (0, (), ())


def test_a_warning_names_images_in_two_classes(report):
    describe_duplicates(find_duplicates(SAMPLES, [b"x", b"1", b"x", b"2", b"3"]), report)
    assert [warning for warning in report.warnings if "a/1 = b/1" in warning and "class" in warning]


def splits(sizes, *, cross_validated):
    samples = [Sample(path="", label=label, split="train") for label, size in enumerate(sizes) for _ in range(size)]
    return SplitDataset(
        samples=tuple(samples),
        digests=(b"",) * len(samples),
        keys=("",) * len(samples),
        cross_validated=cross_validated,
    )


def dataset(*classes):
    return Dataset(root=Path("photos"), samples=tuple(SAMPLES), classes=classes, skipped={"hidden files": 2})


def test_warnings_about_small_classes_and_imbalance(report):
    describe_balance(dataset("many", "few"), splits([80, 7], cross_validated=False), report, balanced=False)
    assert len(report.warnings) == 2
    assert "few" in report.warnings[0]
    assert "--balance" in report.warnings[1]


def test_no_warning_for_balanced_classes(report):
    describe_balance(dataset("a", "b"), splits([80, 20], cross_validated=False), report, balanced=False)
    assert report.warnings == []


def test_a_note_describes_the_dataset(report):
    describe_dataset(dataset("a", "b"), report)
    assert "photos: 5 images" in report.notes[0]
    assert "a 2, b 3" in report.notes[0]
    assert "2 hidden files" in report.notes[1]


def test_failures_are_listed_with_reasons(report):
    describe_failures(dataset("a", "b"), {2: "truncated", 0: "empty"}, report)
    assert "2 of 5" in report.warnings[0]
    assert report.notes == ["  a/1: empty", "  b/1: truncated"]
