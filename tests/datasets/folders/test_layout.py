"""Which folders are splits and which are classes: read correctly, or refused with what was probably meant."""

import os

import pytest

from tlcli.datasets.dataset import open_dataset
from tlcli.errors import DataError, UsageError
from tlcli.settings.filters import PathPatterns


def touch(root, *names):
    """Create images; `{a,b}` in a name stands for both, and a name that ends with a slash for two images."""
    for name in names:
        before, brace, rest = name.partition("{")
        if brace:
            middle, _, after = rest.partition("}")
            touch(root, *(f"{before}{part}{after}" for part in middle.split(",")))
            continue
        for path in [root / name] if not name.endswith("/") else [root / name / "1.jpg", root / name / "2.jpg"]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["Training/{a,b}/", "Testing/{a,b}/"], {"train": 4, "test": 4}),
        (["train_set/{a,b}/", "test_set/{a,b}/"], {"train": 4, "test": 4}),
        (["seg_train/seg_train/{a,b}/", "seg_test/seg_test/{a,b}/", "seg_pred/seg_pred/"], {"train": 4, "test": 4}),
        (["train/images/{a,b}/", "test/images/{a,b}/"], {"train": 4, "test": 4}),
        (["training/{a,b}/", "validation/{a,b}/"], {"train": 4, "validation": 4}),
        (["Train/{a,b}/", "Val/{a,b}/", "TEST/{a,b}/"], {"train": 4, "validation": 4, "test": 4}),
        (["train/{a,b}/", "dev/{a,b}/", "eval/{a,b}/"], {"train": 4, "validation": 4, "test": 4}),
        (["train/{a,b}/", "hold-out/b/"], {"train": 4, "validation": 2}),
        (["cifar_train/{a,b}/", "cifar_test/{a,b}/"], {"train": 4, "test": 4}),
        (["train/{a,b}/", "my_test/{a,b}/"], {"train": 4, "test": 4}),
        (["train/{a,b}/", "test/"], {"train": 4}),
        (["train/{a,b}/", "test1/", "sample.jpg"], {"train": 4}),
        (["train/{a,b}/", "extra/{a,c}/"], {"train": 4}),
        (["train/{a,b}/", "test/{a,b}/", "unlabeled/", "demo/x/"], {"train": 4, "test": 4}),
        (["train/{a,b}/", "train_masks/{a,b}/", "test/{a,b}/"], {"train": 4, "test": 4}),
        (["Training/{a,b}/"], {"train": 4}),
    ],
)
def test_folders_that_are_splits(tmp_path, names, splits):
    dataset = open_dataset(touch(tmp_path, *names))
    assert dataset.classes == ("a", "b")
    found = [sample.split for sample in dataset.samples]
    assert {split: found.count(split) for split in found} == splits


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["car/", "plane/", "train/"], "car plane train"),
        (["car/{van,coupe}/", "plane/{jet,glider}/", "train/{steam,diesel}/"], "car plane train"),
        (["car/", "plane/", "train/{steam,diesel}/"], "car plane train"),
        (["pass/", "fail/", "test/"], "fail pass test"),
        (["cat/", "dog/{young,old}/", "dog/3.jpg"], "cat dog"),
        (["cat/", "dog/{young,old}/"], "cat dog"),
        (["cat/2021-{01,02}/", "dog/2021-{01,02}/"], "cat dog"),
        (["car/2021-{01,02}/", "train/2021-{01,02}/"], "car train"),
        (["cat/patient{1,2}/", "dog/patient{3,4}/"], "cat dog"),
        (["cat/images/", "dog/images/"], "cat dog"),
        (["photos/{trip,home}/", "drawings/"], "drawings photos"),
        (["with_mask/{in,out}/", "without_mask/"], "with_mask without_mask"),
        (["animals/{cat,dog}/", "things/{car,cup}/"], "animals things"),
    ],
)
def test_folders_that_are_classes(tmp_path, names, classes):
    dataset = open_dataset(touch(tmp_path, *names))
    assert dataset.classes == tuple(classes.split())
    assert len(dataset.samples) == sum(len(files) for _, _, files in os.walk(tmp_path))
    assert {sample.split for sample in dataset.samples} == {None}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train/", "test/"],
            r"images directly in folders named like splits \(test, train\).*/train/<class>|/test/<class>",
        ),
        (["Training/", "Validation/", "Testing/"], "named like splits"),
        (["train/", "test/{a,b}/"], "train has no class folders"),
        (["train{A,B}/", "test{A,B}/"], "named like splits"),
        (["{cat,dog}_train/{x,y}/", "{cat,dog}_test/{x,y}/"], "several sets of splits"),
        (["train/{a,b}/", "things/"], "unclear whether train is a split or a class.*--exclude things/"),
        (["val/{a,b}/", "valid/{a,b}/", "train/{a,b}/"], "two folders for validation: val and valid.*--exclude valid/"),
        (["test/{a,b}/", "test1/{a,b}/", "train/{a,b}/"], "two folders for test"),
        (["test/{a,b}/", "val/{a,b}/"], "has no train folder, only val, test"),
        (["pictures/{cat,dog}/"], r"Pass that folder instead: \S*/pictures\.$"),
        (["data/train/{cat,dog}/", "data/test/{cat,dog}/"], r"\(test, train\)\. Pass that folder instead: \S*/data\.$"),
        (["a/b/c/{cat,dog}/"], r"instead: \S*/a/b/c\.$"),
        (
            ["Dataset/{0,1,2,3}/", "Examples/"],
            r"beside Examples \(2 images\).*\(0, 1, 2, 3\).*: \S*/Dataset\. If Dataset is a class",
        ),
        (["Dataset/train/{0,1}/", "docs/"], r"instead: \S*/Dataset\. If Dataset is a class"),
        (["flowers/{a,b,c}/{1,2,3,4}.jpg", "logo.jpg", "my_pics/x.jpg"], r"instead: \S*/flowers\. "),
        (["images/{a,b}/", "masks/{a,b}/"], r"instead: \S*/images\. "),
        (
            ["part1/{a,b}/", "part2/{a,b}/"],
            r"\(part1, part2\) all have the same subfolders \(a, b\).*pass one of.*/part1",
        ),
        (["train/{a,b}/", "train/val/{a,b}/"], r"/train/val is not a class, .*\(a, b\).*--exclude /train/val/"),
        (["{a,b}/", "copy/{a,b}/"], r"/copy is not a class.*--exclude /copy/"),
        (["cat/{train,test}/", "dog/"], r"/cat holds folders named like splits.*such as \S*/train/cat/"),
        (["yolo/images/{train,val}/"], r"yolo/images holds images directly in folders named like splits"),
        (["bottle/{train,test}/", "cable/{train,test}/"], "Move the images to .*/train/bottle/"),
    ],
)
def test_folders_that_are_refused(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        open_dataset(touch(tmp_path, *names))


def test_how_folders_are_read_is_noted(tmp_path):
    touch(tmp_path, "Training/Training/{a,b}/", "Training/Training/a/in/", "Testing/{a,b}/", "extra/")
    assert open_dataset(tmp_path).notes == (
        "splits: Training/Training -> train, Testing -> test",
        "not used, beside the splits: extra (2 images)",
        "subfolders merged into their class: Training/Training/a (1)",
    )


def test_excluded_folders_repair_a_dataset(tmp_path):
    touch(tmp_path, "cat/{images,masks}/", "dog/{images,masks}/", "Examples/", "cat/1_mask.png")
    dataset = open_dataset(tmp_path, filters=PathPatterns(exclude=("masks", "Examples", "*_mask.*")))
    assert [os.path.relpath(sample.path, tmp_path) for sample in dataset.samples] == [
        f"{name}/images/{number}.jpg" for name in ("cat", "dog") for number in (1, 2)
    ]
    assert dataset.skipped == {"excluded": 7}
    dataset = open_dataset(tmp_path, filters=PathPatterns(include=("*/images/*",)))
    assert dataset.classes == ("cat", "dog")
    assert dataset.skipped == {"excluded": 7}


def test_a_filter_that_matches_nothing_is_an_error(tmp_path):
    touch(tmp_path, "a/", "b/")
    with pytest.raises(UsageError, match=r"--exclude 'Exampels' matches no file .* such as a/2.jpg"):
        open_dataset(tmp_path, filters=PathPatterns(exclude=("1.jpg", "Exampels")))


def test_the_classes_of_a_run_are_no_wrong_level(tmp_path):
    dataset = open_dataset(touch(tmp_path, "train/{x,y}/", "test/{x,y}/"), classes=("test", "train"))
    assert {sample.split for sample in dataset.samples} == {None}
    dataset = open_dataset(touch(tmp_path / "other", "Testing/{x,y}/"), classes=("x", "y"))
    assert {sample.split for sample in dataset.samples} == {"test"}


@pytest.mark.parametrize("names", [["train/", "test/"], ["images/"], ["1.jpg", "2.jpg"]])
def test_a_table_beside_images_without_class_folders_is_named(tmp_path, names):
    touch(tmp_path, *names)
    folder = "" if names[0].endswith(".jpg") else names[0]
    (tmp_path / "sample_submission.csv").write_text("path,label\n")
    (tmp_path / "train.csv").write_text(f"path,label\n{folder}1.jpg,a\n{folder}2.jpg,b\n")
    with pytest.raises(DataError, match=r"train\.csv lists 2 images .* Pass it: \S*/train\.csv\."):
        open_dataset(tmp_path)
    (tmp_path / "train.csv").write_text("one,two\n1,2\n")
    with pytest.raises(DataError, match=r"train\.csv may list the classes"):
        open_dataset(tmp_path)


def test_the_columns_of_a_table_beside_images_are_guessed(tmp_path):
    touch(tmp_path, "train/{1,2,3,4}.jpg", "test/{5,6}.jpg")
    (tmp_path / "train.csv").write_text("id,dog breed\n1,a\n2,a\n3,b\n4,b\n")
    with pytest.raises(DataError, match=r"train\.csv lists 4 images .*/train\.csv --label-column 'dog breed'\."):
        open_dataset(tmp_path)


def test_the_message_about_a_folder_without_images_lists_its_files(tmp_path):
    touch(tmp_path, "a/1.tga", "b/2.tga")
    with pytest.raises(DataError, match=r"no class folders with images.*Skipped: not images: \.tga 2\."):
        open_dataset(tmp_path)
