"""The comparison of two runs on images whose predictions are given."""

import pytest

from tlcli.inference.paired_comparison import PairedComparison, PairedImage, describe_result


def image(path, label, a, b):
    return PairedImage(path=path, label=label, predicted=(a, b), confidence=(0.9, 0.6))


def compared(*images):
    return PairedComparison(classes=("cat", "dog", "owl"), images=images).result()


def many(both, only_a, only_b):
    """Images that both, only A, or only B predicts correctly."""
    return (
        [image("x", "cat", "cat", "cat")] * both
        + [image("y", "cat", "cat", "dog")] * only_a
        + [image("z", "cat", "dog", "cat")] * only_b
    )


def test_counts_and_flips():
    found = compared(
        image("1.jpg", "dog", "dog", "cat"),
        image("2.jpg", "cat", "cat", "cat"),
        image("3.jpg", "cat", "dog", "cat"),
        image("4.jpg", "cat", "dog", "owl"),
        image("5.jpg", "cat", "cat", "owl"),
    )
    assert (found["images"], found["accuracy_a"], found["accuracy_b"]) == (5, 0.6, 0.4)
    assert found["difference"] == pytest.approx(-0.2)
    assert found["per_class"]["cat"] == {"images": 4, "accuracy_a": 0.5, "accuracy_b": 0.5, "only_a": 1, "only_b": 1}
    assert found["per_class"]["owl"] == {"images": 0, "accuracy_a": None, "accuracy_b": None, "only_a": 0, "only_b": 0}
    assert [one["path"] for one in found["flips"]["only_a"]] == ["5.jpg", "1.jpg"], "by class"
    assert found["flips"]["only_b"] == [
        {
            "path": "3.jpg",
            "label": "cat",
            "predicted_a": "dog",
            "predicted_b": "cat",
            "confidence_a": 0.9,
            "confidence_b": 0.6,
        }
    ]


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ((350, 2, 20), "B is more accurate"),
        ((350, 20, 2), "A is more accurate"),
        ((344, 10, 18), "not distinguishable on 372 images; about 1,400 would be needed to tell"),
        ((360, 6, 6), "not distinguishable on 372 images: both runs are right on equally many"),
        ((372, 0, 0), "not distinguishable on 372 images: both runs are right on the same ones"),
        ((1, 0, 0), "not distinguishable on 1 image: both runs are right on the same ones"),
    ],
)
def test_the_result_in_words(counts, sentence):
    found = compared(*many(*counts))
    assert describe_result(found) == sentence
    assert found["distinguishable"] == (found["p_value"] < 0.05) == sentence.endswith("more accurate")
