"""Which unlabeled images are used."""

import os
from types import SimpleNamespace

import pytest

from tlcli.training import unlabeled_images
from tlcli.training.unlabeled_images import UnlabeledSource, with_unlabeled


class Images:
    """Labeled images, and what is known of unlabeled ones: a digest for each path that is not `unreadable`."""

    def __init__(self, train, validation):
        self.counts = {"train": train, "validation": validation}
        self.extraction = SimpleNamespace(digests=[b"a", b"b", None])
        self.dataset = SimpleNamespace(corrections=SimpleNamespace(left_out_digests=frozenset({b"c"})))

    def rows(self, split):
        return list(range(self.counts[split]))


def read(paths):
    return [None if path == "unreadable" else os.fsencode(path) for path in paths]


def others(*paths, of_no_class=()):
    source = UnlabeledSource(name="source", paths=paths, of_no_class=of_no_class)
    return [paths[index] for index in unlabeled_images._others(Images(1, 0), source, SimpleNamespace(read=read))]


def test_copies_count_once_and_known_images_do_not():
    assert others("f", "a", "unreadable", "e", "c", "f", "d", of_no_class=("d", "gone")) == ["e", "f", "unreadable"]


@pytest.mark.parametrize(
    ("views", "refit", "used"), [(0, False, True), (0, True, False), (1, False, False), (1, True, False)]
)
def test_unlabeled_images_are_not_used_beside_many_labeled_ones(report, monkeypatch, views, refit, used):
    """The last fit compares the validation images as well, and all views."""
    monkeypatch.setattr(unlabeled_images, "MOST", 10)
    extractor = SimpleNamespace(network=SimpleNamespace(report=report))
    images, source = Images(8, 4), UnlabeledSource(name="source", paths=("a",), of_no_class=())
    reader = SimpleNamespace(read=read)
    if used:
        with pytest.raises(unlabeled_images.DataError, match="no usable image in source besides those of DATA"):
            with_unlabeled(images, source, extractor, reader, views=views, refit=refit)
        return
    assert with_unlabeled(images, source, extractor, reader, views=views, refit=refit) is images
    assert "there are more than 10 labeled images" in report.notes[0]


def test_no_source_changes_nothing():
    images = Images(1, 1)
    assert with_unlabeled(images, None, None, None) is images
