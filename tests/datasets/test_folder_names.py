"""Names of split folders, in the forms in which people write them."""

import pytest

from tlcli.datasets.folder_names import MASK_NAME, split_of


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "TRAIN", "Training", "train_set", "seg_train", "trainset", "TrainSet")),
        *(
            (name, "train")
            for name in ("training_images", "Train (1)", "1_train", "train2017", "trainval", "train_val")
        ),
        *((name, "validation") for name in ("val", "Valid", "validation-set", "dev", "holdout", "hold_out", "val2017")),
        *((name, "test") for name in ("Testing", "test_set", "TestImages", "seg_test", "eval", "Evaluation", "test1")),
    ],
)
def test_names_that_mean_a_split(name, split):
    assert split_of(name) == (split, ())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar_train", ("train", ("cifar",))),
        ("Plants-Test", ("test", ("plants",))),
        ("trainA", ("train", ("a",))),
        ("train_masks", None),
        ("test_labels", None),
        ("trains", None),
        ("contest", None),
        ("evaluated", None),
        ("devil", None),
        ("train_test", None),
        ("images", None),
    ],
)
def test_other_words_in_a_name(name, expected):
    assert split_of(name) == expected


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        *((name, True) for name in ("masks", "GT", "train_mask", "labels_1", "ground-truth", "SegmentationClass")),
        *((name, False) for name in ("damask", "images", "labelled", "with_mask", "without_mask", "face mask")),
    ],
)
def test_names_of_folders_of_masks(name, matches):
    assert bool(MASK_NAME.fullmatch(name)) == matches
