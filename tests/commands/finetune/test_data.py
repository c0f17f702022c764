"""finetune on data of all kinds: splits, few and failed images, groups, weighted classes, and odd names."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from head_runs import settings_for
from PIL import Image

from tlcli.commands.finetune import finetune
from tlcli.errors import DataError, UsageError
from tlcli.runs.run import load_run


def test_splits_of_the_dataset_are_kept(photos, trained, tmp_path):
    data = tmp_path / "data"
    for split, chosen in {"train": slice(0, 9), "val": slice(9, 12), "test": slice(12, 15)}.items():
        for folder in photos.iterdir():
            (data / split / folder.name).mkdir(parents=True)
            for path in sorted(folder.iterdir())[chosen]:
                shutil.copy(path, data / split / folder.name)
    info = finetune(settings_for(data, tmp_path / "run", trained.cache))
    assert info["images"] | {"train": 27, "validation": 9, "test": 9, "computed": 0} == info["images"]
    assert info["validation"]["method"] == "holdout"
    assert info["test"]["images"] == 9
    with pytest.raises(UsageError, match="has its own validation"):
        finetune(settings_for(data, tmp_path / "other", trained.cache, validation_fraction=0.5))


def test_five_images_per_class_are_enough(photos, trained, tmp_path):
    data = tmp_path / "few"
    for folder in photos.iterdir():
        (data / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:5]:
            shutil.copy(path, data / folder.name)
    info = finetune(settings_for(data, tmp_path / "run", trained.cache))
    assert info["images"]["train"] == 15
    assert np.isfinite(info["validation"]["loss"])
    assert 0 <= info["validation"]["accuracy"] <= 1


def test_failed_images_are_listed_and_left_out(photos, trained, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    (data / "disc" / "broken.jpg").write_bytes(b"\xff\xd8 not an image")
    (data / "disc" / "empty.jpg").touch()
    (data / "disc" / "notes.txt").write_text("skipped")
    info = finetune(settings_for(data, tmp_path / "run", trained.cache))
    assert info["images"]["failed"] == 2
    assert info["images"]["skipped"] == 1
    assert {failure["path"].rsplit("/", 1)[1] for failure in info["data"]["failed"]} == {"broken.jpg", "empty.jpg"}
    assert info["images"]["train"] == 45


@pytest.mark.slow
def test_duplicates_in_two_classes_are_listed(photos, trained, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    shutil.copy(data / "disc" / "00.jpg", data / "square" / "copy.jpg")
    info = finetune(settings_for(data, tmp_path / "run", trained.cache))
    (paths,) = info["data"]["duplicates"]["across_classes"]
    assert [path.rsplit("/", 2)[1:] for path in paths] == [["disc", "00.jpg"], ["square", "copy.jpg"]]


def test_class_without_readable_images_is_an_error(photos, trained, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    (data / "zebra").mkdir()
    (data / "zebra" / "z.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match="'zebra' has no usable image"):
        finetune(settings_for(data, tmp_path / "run", trained.cache))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_balance_predicts_the_common_class_less_often(photos, trained, tmp_path):
    data = tmp_path / "data"
    for folder in photos.iterdir():
        (data / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[: 15 if folder.name == "disc" else 3]:
            shutil.copy(path, data / folder.name)
    plain = finetune(settings_for(data, tmp_path / "plain", trained.cache))
    balanced = finetune(settings_for(data, tmp_path / "balanced", trained.cache, balance=True))
    assert balanced["settings"]["balance"]
    counts = [np.array(info["validation"]["confusion"]).sum(axis=0)[0] for info in (plain, balanced)]
    assert counts[1] <= counts[0]
    weights = [load_run(tmp_path / name).weights()["classifier.bias"] for name in ("plain", "balanced")]
    assert not torch.equal(*weights)


def test_class_weights_favor_a_class(photos, trained, tmp_path):
    data = tmp_path / "data"
    for folder in photos.iterdir():
        (data / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:8]:
            shutil.copy(path, data / folder.name)
    weighted = settings_for(data, tmp_path / "run", trained.cache, class_weight=("disc=1e6",))
    info = finetune(weighted)
    assert info["settings"]["class_weight"] == ["disc=1e6"]
    assert info["log_prior"] == pytest.approx([-np.log(1e6), 0, 0])
    assert np.array(info["validation"]["confusion"]).sum(axis=0)[0] > 8, "disc is predicted more often than it occurs"
    for value, message in [
        ("disk=2", "no such class; found disc, square, stripes"),
        ("3", "expected CLASS=W"),
        ("disc=0", "above 0"),
    ]:
        with pytest.raises(UsageError, match=message):
            finetune(settings_for(data, tmp_path / "other", trained.cache, class_weight=(value,)))
    assert not (tmp_path / "other").exists()


def test_group_by_keeps_groups_together(tmp_path, trained, photos):
    data = tmp_path / "data"
    for folder in photos.iterdir():
        (data / folder.name).mkdir(parents=True)
        for index, path in enumerate(sorted(folder.iterdir())):
            shutil.copy(path, data / folder.name / f"plate{index % 6}_{index}.jpg")
    finetune(settings_for(data, tmp_path / "run", trained.cache, group_by=r"(plate\d)_", validation_fraction=0.4))
    rows = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pylist()
    held_out = {row["path"] for row in rows}
    for plate in range(6):
        members = {str(path) for path in data.rglob(f"plate{plate}_*")}
        assert members <= held_out or not members & held_out
    assert held_out


def test_class_names_with_special_characters(photos, trained, tmp_path):
    data = tmp_path / "data"
    for index, folder in enumerate(sorted(photos.iterdir())):
        shutil.copytree(folder, data / ["<script>alert(1)</script>".replace("/", "∕"), "=cmd()", 'a,b\n"c" é'][index])
    info = finetune(settings_for(data, tmp_path / "run", trained.cache))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script>alert" not in page
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["label_names"] == info["classes"]


def test_drawn_images_are_distinct(photos):
    images = [Image.open(path) for path in photos.rglob("*.jpg")]
    assert len({image.tobytes() for image in images}) == 45
