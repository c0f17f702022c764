"""Classes whose names are written differently are one class, or are refused."""

import unicodedata

import pytest

from tlcli.datasets.class_names import reading_order, unify_class_names
from tlcli.datasets.labeled_image import LabeledImage
from tlcli.errors import DataError

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def unified(*names, known=None):
    images = [LabeledImage(path=f"{number}.jpg", label=name) for number, name in enumerate(names)]
    notes = []
    labels = [image.label for image in unify_class_names(images, known, notes)]
    expected = "class names written in several forms, each read as one class: café"
    assert notes == ([expected] if {NFC, NFD} <= set(names) else [])
    return labels


@pytest.mark.parametrize(
    ("names", "known", "expected"),
    [
        ((NFD, NFC, "b"), None, [NFC, NFC, "b"]),
        ((NFD, NFD), None, [NFC, NFC]),
        ((" a", " a", "b\u200b"), None, ["a", "a", "b"]),
        ((NFD, "b"), (NFC, "b"), [NFC, "b"]),
        ((NFC, "b"), (NFD, "b"), [NFD, "b"]),  # a run of 0.1
        (("a ", "A"), ("A", "a"), ["a", "A"]),
        (("c",), ("a", "b"), ["c"]),
        (("m²", "m2", "❤\ufe0f", "👩\u200d🚀", "👩🚀"), None, ["m²", "m2", "❤\ufe0f", "👩\u200d🚀", "👩🚀"]),
    ],
)
def test_forms_of_one_name(names, known, expected):
    assert unified(*names, known=known) == expected


@pytest.mark.parametrize("other", ["Cat", "cat ", "cat\u200b", "c\u00adat", "cat\xa0", "\u200dcat\u3000", "ca\u2060t"])
def test_names_that_look_the_same_are_refused(other):
    with pytest.raises(DataError, match=r"'cat' \(such as 0\.jpg\) and .* \(such as 2\.jpg\) look the same"):
        unified("cat", "dog", other)


def test_blanks_within_names_look_the_same():
    with pytest.raises(DataError, match="look the same"):
        unified("big cat", "big\xa0cat")


def test_a_class_that_looks_like_one_of_the_run():
    with pytest.raises(DataError, match=r"looks like 'cat'.* Rename it to 'cat'"):
        unified("Cat", known=("cat", "dog"))


def test_numbers_are_read_in_the_order_of_their_values():
    names = ["-1", "10", "2", "9.5", "b", "a"]
    assert [names[index] for index in reading_order(names)] == ["-1", "2", "9.5", "10", "b", "a"]
