"""Datasets in folders: samples, classes, splits, and groups, and an error for each invalid form."""

import os
import unicodedata
from pathlib import Path

import pytest

from tlcli.datasets.augmented_dataset import original_path
from tlcli.datasets.dataset import open_dataset
from tlcli.datasets.descriptions import describe_dataset
from tlcli.errors import DataError, MachineError, UsageError
from tlcli.settings import TableColumns
from tlcli.settings.filters import PathPatterns


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def listed(dataset):
    """Return (path relative to the root, class name, split) of each sample."""
    return [
        (os.path.relpath(sample.path, dataset.root), dataset.classes[sample.label], sample.split)
        for sample in dataset.samples
    ]


def test_one_folder_per_class(tmp_path):
    touch(tmp_path, "cat/2.jpg", "cat/1.PNG", "cat/more/3.jpg", "dog/1.jpg")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert listed(dataset) == [
        ("cat/1.PNG", "cat", None),
        ("cat/2.jpg", "cat", None),
        ("cat/more/3.jpg", "cat", None),
        ("dog/1.jpg", "dog", None),
    ]
    assert dataset.skipped == {}
    assert not dataset.has_split("train")


def test_classes_are_sorted_as_plain_strings(tmp_path):
    touch(tmp_path, *(f"{name}/1.jpg" for name in ["b", "10", "9", "C", "é", "z"]))
    assert open_dataset(tmp_path).classes == ("10", "9", "C", "b", "z", "é")


@pytest.mark.parametrize("splits", [("", ""), ("train/", "val/")])
def test_folders_in_two_unicode_forms_are_one_class(tmp_path, splits):
    forms = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    touch(tmp_path, *(f"{split}{form}/{form}.jpg" for split, form in zip(splits, forms, strict=True)))
    touch(tmp_path, f"{splits[0]}b/1.jpg")
    for classes in (None, ("b", "é")):
        dataset = open_dataset(tmp_path, classes=classes)
        assert dataset.classes == ("b", "é")
        assert sorted(sample.label for sample in dataset.samples) == [0, 1, 1]


def test_folders_whose_names_look_the_same_are_refused(tmp_path):
    touch(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "val/Cat/2.jpg")
    with pytest.raises(DataError, match=r"'cat' \(such as .*/train/cat/1\.jpg\) and 'Cat' .* look the same"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match=r"class 'Cat' .* looks like 'cat'"):
        open_dataset(tmp_path, classes=("cat", "dog"))


@pytest.mark.parametrize("name", ["image_column", "label_column", "split_column", "group_column"])
def test_columns_have_no_effect_on_a_folder(tmp_path, name):
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} has no effect: .* is not a table"):
        open_dataset(tmp_path, columns=TableColumns(**{name: "x"}))


def test_group_by_and_a_group_column_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match="--group-by and --group-column both define the groups"):
        open_dataset(tmp_path / "t.csv", group_by="x", columns=TableColumns(group_column="g"))


def test_the_description_lists_numbers_by_value_and_how_a_table_was_read(tmp_path, report):
    touch(tmp_path, "1.jpg")
    (tmp_path / "t.csv").write_text("image;label\n" + "".join(f"1.jpg;{number}\n" for number in (10, 9, 1)))
    dataset = open_dataset(tmp_path / "t.csv")
    assert dataset.classes == ("1", "10", "9")
    describe_dataset(dataset, report)
    assert report.notes[0].endswith("3 classes: 1 1, 9 1, 10 1")
    assert report.notes[1:3] == ["  separated by semicolons", "  columns: images from image, classes from label"]


@pytest.mark.parametrize("splits", [("", ""), ("train/", "train/"), ("train/", "val/")])
def test_two_folders_for_one_class_are_rejected(tmp_path, splits):
    touch(tmp_path, f"{splits[0]}%FF/1.jpg", f"{splits[1]}{os.fsdecode(bytes([255]))}/1.jpg", f"{splits[0]}a/1.jpg")
    with pytest.raises(DataError, match=rf"{splits[0]}%FF and .*/{splits[1]}\udcff would be one class, '%FF'"):
        open_dataset(tmp_path)


def test_a_class_has_one_folder_in_each_split(tmp_path):
    odd = os.fsdecode(b"\xff")
    touch(tmp_path, f"train/{odd}/1.jpg", "train/a/1.jpg", f"val/{odd}/2.jpg")
    assert open_dataset(tmp_path).classes == ("%FF", "a")


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "VAL"])
def test_split_folders(tmp_path, validation):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", f"{validation}/a/2.jpg", "test/b/3.jpg")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("a", "b")
    assert [split for _, _, split in listed(dataset)] == ["train", "train", "validation", "test"]
    assert dataset.has_split("validation")
    assert dataset.has_split("test")


def test_validation_and_test_may_be_missing_or_lack_a_class(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg")
    (tmp_path / "test" / "b").mkdir()
    dataset = open_dataset(tmp_path)
    assert not dataset.has_split("validation")
    assert [split for _, _, split in listed(dataset)] == ["train", "train", "test"]


def test_classes_may_be_named_train_and_test(tmp_path):
    touch(tmp_path, "train/1.jpg", "test/1.jpg", "bus/1.jpg")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("bus", "test", "train")
    assert {split for _, _, split in listed(dataset)} == {None}


def test_skipped_files_are_counted_by_reason(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/notes.txt", "a/._1.jpg", "b/1.jpg", "loose.jpg", "readme.md", ".DS_Store")
    touch(tmp_path, ".ipynb_checkpoints/1.jpg")
    assert open_dataset(tmp_path).skipped == {
        "._*": 1,
        ".DS_Store": 1,
        "in .ipynb_checkpoints": 1,
        ".txt": 1,
        ".md": 1,
        "images outside the class folders": 1,
    }


def test_what_lies_beside_the_split_folders_is_named_and_counted(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "extra/a/1.jpg", "extra/a/2.jpg", "loose.jpg", "readme.md")
    dataset = open_dataset(tmp_path)
    assert dataset.skipped == {"beside the split folders": 2, "images outside the class folders": 1, ".md": 1}
    assert dataset.notes == ("not used, beside the splits: extra (2 images)",)


@pytest.mark.parametrize(
    ("name", "below"),
    [("a/1.jpg", "1.jpg"), ("seg_train/seg_train/a/in/1.jpg", "in/1.jpg"), ("train/a/a/1.jpg", "a/1.jpg")],
)
def test_an_augmented_image_keeps_its_path_below_the_class_folder(tmp_path, name, below):
    touch(tmp_path, name, str(Path(name).parents[len(Path(below).parts)] / "b/1.jpg"))
    dataset = open_dataset(tmp_path)
    sample = next(sample for sample in dataset.samples if sample.path.endswith(name))
    assert original_path(dataset, sample, b"") == f"train/a/{below}"


def test_a_class_folder_may_be_a_link(tmp_path):
    touch(tmp_path / "elsewhere", "1.jpg")
    root = touch(tmp_path / "data", "a/1.jpg")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    assert listed(open_dataset(root)) == [("a/1.jpg", "a", None), ("b/1.jpg", "b", None)]


def test_a_class_name_that_is_not_utf8_is_percent_encoded(tmp_path):
    touch(tmp_path, "a/1.jpg")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    Path(odd).mkdir()
    Path(odd, "1.jpg").write_bytes(b"")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("a", "caf%E9")
    assert Path(dataset.samples[1].path).is_file()


def test_paths_start_as_data_was_typed(tmp_path, monkeypatch):
    touch(tmp_path / "photos", "a/1.jpg", "b/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert [sample.path for sample in open_dataset(Path("photos")).samples] == ["photos/a/1.jpg", "photos/b/1.jpg"]


def test_a_table(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "data.CSV").write_text("path,label,split\n1.jpg,b,train\n2.jpg,a,\n")
    dataset = open_dataset(tmp_path / "data.CSV")
    assert dataset.classes == ("a", "b")
    assert [(sample.label, sample.split) for sample in dataset.samples] == [(1, "train"), (0, "train")]


def test_excluded_images_of_a_table_need_not_exist(tmp_path):
    touch(tmp_path, "in/1.jpg", "2.jpg")
    (tmp_path / "data.csv").write_text("path,label\nin/1.jpg,b\n2.jpg,a\nold/3.jpg,c\nold/4.jpg,c\n")
    dataset = open_dataset(tmp_path / "data.csv", filters=PathPatterns(exclude=("old",)))
    assert dataset.classes == ("a", "b")
    assert dataset.skipped == {"excluded": 2}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no class folders"),
        (["1.jpg", "2.jpg"], "no class folders"),
        (["a/1.jpg", "b/notes.txt"], r"/b holds no images .*\.jpg.*remove the folder"),
        (["train/a/1.jpg", "train/b/readme"], "/train/b holds no images"),
        (["a/1.jpg", "a/2.jpg"], "only one class, 'a'"),
        (["train/a/1.jpg", "val/a/1.jpg"], "only one class, 'a'"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"], r"class 'c' of .*val/c/1.jpg.*of train: a, b"),
        (["train/a/1.jpg", "train/b/1.jpg", "test/c/1.jpg"], r"class 'c' of .*test/c/1.jpg"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"], "two folders for validation"),
    ],
)
def test_invalid_folders(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        open_dataset(touch(tmp_path, *names))


def test_missing_data(tmp_path):
    with pytest.raises(DataError, match="does not exist") as caught:
        open_dataset(tmp_path / "nowhere")
    assert caught.value.path == str(tmp_path / "nowhere")
    assert caught.value.exit_code == 4


def test_a_file_that_is_not_a_table(tmp_path):
    touch(tmp_path, "image.jpg")
    with pytest.raises(DataError, match="is not a folder, a table, or a tar"):
        open_dataset(tmp_path / "image.jpg")


def test_a_table_without_training_images(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "data.csv").write_text("path,label,split\n1.jpg,b,test\n2.jpg,a,test\n")
    with pytest.raises(DataError, match="no training images"):
        open_dataset(tmp_path / "data.csv")


def test_a_table_without_rows(tmp_path):
    (tmp_path / "data.csv").write_text("path,label\n")
    with pytest.raises(DataError, match="lists no images"):
        open_dataset(tmp_path / "data.csv")


def test_the_classes_of_a_run_keep_their_order_and_may_lack_images(tmp_path):
    touch(tmp_path, "b/1.jpg", "a/1.jpg")
    dataset = open_dataset(tmp_path, classes=("z", "b", "a"))
    assert dataset.classes == ("z", "b", "a")
    assert listed(dataset) == [("a/1.jpg", "a", None), ("b/1.jpg", "b", None)]


def test_one_class_is_enough_to_evaluate_a_run(tmp_path):
    touch(tmp_path, "a/1.jpg")
    assert listed(open_dataset(tmp_path, classes=("a", "b"))) == [("a/1.jpg", "a", None)]


def test_a_class_that_is_not_in_the_run(tmp_path):
    touch(tmp_path, "a/1.jpg", "c/1.jpg")
    with pytest.raises(DataError, match=r"class 'c'.*the run: a, b"):
        open_dataset(tmp_path, classes=("a", "b"))


def test_group_by_takes_the_first_capture_or_the_whole_match(tmp_path):
    touch(tmp_path, "a/p1_x.jpg", "a/p1_y.jpg", "b/p2_x.jpg", "b/other.jpg")
    by_capture = open_dataset(tmp_path, group_by=r"p(\d)_")
    assert [sample.group for sample in by_capture.samples] == ["1", "1", None, "2"]
    whole = open_dataset(tmp_path, group_by=r"p\d")
    assert [sample.group for sample in whole.samples] == ["p1", "p1", None, "p2"]


@pytest.mark.parametrize(
    ("pattern", "message"), [("(", "not a regular expression"), ("nothing", "matches none of the 2")]
)
def test_an_invalid_group_by(tmp_path, pattern, message):
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    with pytest.raises(UsageError, match=message):
        open_dataset(tmp_path, group_by=pattern)


@pytest.mark.parametrize("closed", [".", "a", "a/in"])
def test_a_folder_that_cannot_be_listed(public_path, unprivileged, closed):
    root = touch(public_path / "data", "a/1.jpg", "a/in/2.jpg", "b/1.jpg")
    (root / closed).chmod(0)
    with unprivileged(), pytest.raises(MachineError, match="cannot be listed") as caught:
        open_dataset(root)
    assert Path(caught.value.path) == root / closed
