"""Datasets keep classes and splits, copies equal online views, and failures are listed."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from augmented_datasets import augmented, manifest, sha, tree
from PIL import Image

from tlcli.datasets.dataset import open_dataset
from tlcli.errors import MachineError, UsageError
from tlcli.images.worker import DecodeOptions, read_image
from tlcli.settings import AugmentSettings
from tlcli.settings.augmentation import PRESETS, Augmentation


def test_only_training_images_get_copies_and_originals_are_byte_identical(split, tmp_path, report):
    result = augmented(split, tmp_path / "out", report, copies=2)
    assert result["images"] == 17
    assert result["splits"] == {"train": 27, "validation": 4, "test": 4}
    assert result["written"] == 35
    assert (result["failed"], result["failures"]) == (0, [])
    made = open_dataset(tmp_path / "out")
    assert made.classes == ("cat", "dog")
    assert Counter(sample.split for sample in made.samples) == result["splits"]
    originals = {path: sha(path) for path in split.rglob("*.jpg")}
    for path, digest in originals.items():
        place = str(path.relative_to(split)).replace("val/", "validation/", 1)
        assert sha(tmp_path / "out" / place) == digest
    rows = manifest(tmp_path / "out")
    assert {row["path"] for row in rows} == tree(tmp_path / "out").keys() - {"manifest.csv", "augment.json"}
    for row in rows:
        assert originals[Path(row["source"])] == row["digest"]
        assert row["path"].split("/")[:2] == [row["split"], row["label"]]
        assert row["label"] in Path(row["source"]).parts
        assert row["view"] == "0" or row["split"] == "train"
        assert (row["parameters"] == "") == (row["view"] == "0")
    views = [json.loads(row["parameters"]) for row in rows if row["view"] != "0"]
    assert len({tuple(parameters["crop"]) for parameters in views}) == len(views) == 18


@pytest.mark.slow
def test_copies_equal_online_views(split, tmp_path, small):
    augmentation = PRESETS["strong"]
    augmented(split, tmp_path / "out", copies=2, augmentation=augmentation, seed=3)
    rows = [row for row in manifest(tmp_path / "out") if row["split"] == "train"]
    for row in rows:
        offline = read_image(str(tmp_path / "out" / row["path"]), DecodeOptions(preprocessing=small))
        options = DecodeOptions(preprocessing=small, augmentation=augmentation, seed=3)
        online = read_image(row["source"], options, int(row["view"]))
        assert offline.pixels == online.pixels
        assert offline.pixels is not None


@pytest.mark.slow
def test_a_training_image_that_is_also_in_validation_gets_no_copies(split, tmp_path, report):
    twin = split / "train" / "dog" / "2.jpg"
    shutil.copy(split / "val" / "dog" / "0.jpg", twin)
    augmented(split, tmp_path / "out", report, copies=3)
    views = [row["view"] for row in manifest(tmp_path / "out") if row["digest"] == sha(twin)]
    assert views == ["0", "0"]
    assert any("1 training images get no copies" in text for text in report.warnings)


@pytest.mark.slow
def test_unreadable_images_are_listed_and_the_rest_is_written(split, tmp_path, report):
    (split / "train" / "cat" / "broken.jpg").write_bytes(b"no image")
    (split / "val" / "dog" / "empty.jpg").write_bytes(b"")
    result = augmented(split, tmp_path / "out", report)
    assert result["failed"] == 2
    assert {Path(failure["path"]).name for failure in result["failures"]} == {"broken.jpg", "empty.jpg"}
    assert all(failure["error"] for failure in result["failures"])
    assert result["splits"] == {"train": 18, "validation": 4, "test": 4}
    assert not list((tmp_path / "out").rglob("broken*"))


def test_data_and_out_must_not_contain_each_other(split, tmp_path, draw):
    before = tree(tmp_path)
    for out in (split, split / "train" / "cat", split / "new", tmp_path, split / ".." / "split" / "new"):
        with pytest.raises(UsageError):
            augmented(split, out)
    (tmp_path / "link").symlink_to(split)
    with pytest.raises(UsageError, match="contains the other"):
        augmented(split, tmp_path / "link" / "new")
    with pytest.raises(UsageError, match="is a file"):
        augmented(split, draw(tmp_path / "file.png"))
    assert {name: content for name, content in tree(tmp_path).items() if name in before} == before


@pytest.mark.slow
def test_a_full_disk_leaves_no_partial_files(split, tmp_path, full_disk):
    with full_disk(3000), pytest.raises((MachineError, OSError)):
        augmented(split, tmp_path / "out", augmentation=Augmentation(noise=60))
    assert not list((tmp_path / "out").rglob("*.tmp"))
    for path in (tmp_path / "out").rglob("*.png"):
        Image.open(path).load()
    assert augmented(split, tmp_path / "out", augmentation=Augmentation(noise=60), resume=True)["written"] == 26


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "no output"),
        ({"out": Path("x"), "copies": 0}, "--copies is 0"),
        ({"out": Path("x"), "augmentation": Augmentation()}, "leave images unchanged"),
        ({"out": Path("x"), "augmentation": Augmentation(color_shift=(0, 0, 0))}, "leave images unchanged"),
        ({"out": Path("x"), "overwrite": True}, "--overwrite has no effect"),
        ({"preview": Path("x.png"), "resume": True}, "--resume has no effect"),
        ({"preview": Path("x.jpg")}, "ending in .png"),
    ],
)
def test_invalid_settings(changes, message):
    with pytest.raises(UsageError, match=message):
        AugmentSettings(data=Path("data"), **changes)
