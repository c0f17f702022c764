"""Duplicates are paired with the right image, and leaks and conflicts are found."""

from pathlib import Path

from tlcli.checking.copies import Copies, connected_components, copy_findings, files_by_digest
from tlcli.datasets.dataset import Dataset, Sample

TRAIN, TEST, VALIDATION = "train", "test", "validation"


def dataset(*rows):
    """Create a dataset of images a, b, c, ... with these classes and splits."""
    samples = tuple(
        Sample(path=chr(97 + number), label=label, split=split) for number, (label, split) in enumerate(rows)
    )
    return Dataset(root=Path("data"), samples=samples, classes=("cat", "dog"), skipped={})


def found(data, digests, links=None):
    links = {one: dict(others) for one, others in (links or {}).items()}
    copies = Copies(files=files_by_digest(digests), links=links, groups=connected_components(links))
    return {(row.kind, row.path, row.other_path, row.score) for row in copy_findings(data, copies)}


def test_each_copy_is_paired_with_the_first_file():
    data = dataset(*[(0, None)] * 4)
    assert found(data, [b"x", b"y", b"x", b"x"]) == {("duplicate", "c", "a", 1.0), ("duplicate", "d", "a", 1.0)}
    assert found(data, [None, None, b"x", b"y"]) == set()


def test_a_copy_in_another_split_leaks_from_train_in_any_order():
    data = dataset((0, TEST), (0, VALIDATION), (0, TRAIN))
    assert found(data, [b"x", b"x", b"x"]) == {
        ("duplicate", "b", "a", 1.0),
        ("duplicate", "c", "a", 1.0),
        ("leak", "b", "c", 1.0),
        ("leak", "a", "c", 1.0),
    }


def test_a_chain_of_near_duplicates_is_one_group():
    data = dataset((0, TRAIN), (0, TRAIN), (0, TEST))
    links = {0: {1: 0.95}, 1: {0: 0.95, 2: 0.97}, 2: {1: 0.97}}
    assert connected_components(links) == ((0, 1, 2),)
    assert found(data, [b"x", b"y", b"z"], links) == {
        ("near-duplicate", "b", "a", 0.95),
        ("near-duplicate", "c", "b", 0.97),
        ("leak", "c", "b", 0.97),
    }


def test_images_linked_only_through_others_have_no_score():
    data = dataset((0, TRAIN), (1, TEST), (0, TEST))
    links = {0: {2: 0.95}, 1: {2: 0.97}, 2: {0: 0.95, 1: 0.97}}
    assert found(data, [b"x", b"y", b"z"], links) == {
        ("near-duplicate", "b", "c", 0.97),
        ("near-duplicate", "c", "b", 0.97),
        ("leak", "b", "a", None),
        ("leak", "c", "a", 0.95),
        ("conflict", "b", "a", None),
        ("conflict", "c", "b", 0.97),
    }


def test_a_conflict_names_the_most_similar_copy():
    data = dataset((0, None), (0, None), (1, None), (1, None))
    links = {0: {2: 0.94}, 1: {2: 0.99}, 2: {0: 0.94, 1: 0.99}}
    rows = found(data, [b"w", b"x", b"y", b"y"], links)
    assert {row for row in rows if row[0] == "conflict"} == {("conflict", "c", "b", 0.99), ("conflict", "d", "b", 0.99)}
    assert {row for row in rows if row[0] == "duplicate"} == {("duplicate", "d", "c", 1.0)}
