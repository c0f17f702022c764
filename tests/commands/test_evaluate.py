"""evaluate: which split is chosen, and how classes and failed images are counted."""

from __future__ import annotations

import shutil

import pytest

from tlcli.commands.evaluate import evaluate
from tlcli.commands.finetune import finetune
from tlcli.errors import DataError
from tlcli.progress import Silent
from tlcli.settings import CacheSettings, EvaluateSettings, FinetuneSettings, NetworkSettings


class Warnings(Silent):
    """A reporter that records warnings."""

    def __init__(self):
        self.messages = []

    def warn(self, text):
        self.messages.append(text)


def copy_part(photos, target, chosen):
    for folder in photos.iterdir():
        (target / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[chosen]:
            shutil.copy(path, target / folder.name)


def test_warns_about_training_images(photos, trained):
    report = Warnings()
    result = evaluate(EvaluateSettings(run=trained.run, data=photos), report)
    assert result["split"] == "all"
    assert result["images"] == 45
    assert any("trained on" in text for text in report.messages)


def test_other_data_is_evaluated_without_a_warning(photos, trained, tmp_path):
    copy_part(photos, tmp_path / "other", slice(0, 4))
    for path in (tmp_path / "other").rglob("*.jpg"):
        path.write_bytes(path.read_bytes() + b"another file")
    report = Warnings()
    result = evaluate(EvaluateSettings(run=trained.run, data=tmp_path / "other"), report)
    assert result["split"] == "all"
    assert result["images"] == 12
    assert report.messages == []


def test_warns_about_a_subset_of_the_training_images(photos, trained, tmp_path):
    copy_part(photos, tmp_path / "part", slice(0, 4))
    added = tmp_path / "part" / "disc" / "new.jpg"
    added.write_bytes((photos / "disc" / "00.jpg").read_bytes() + b"another file")
    report = Warnings()
    evaluate(EvaluateSettings(run=trained.run, data=tmp_path / "part"), report)
    assert any(text.startswith("the run was trained on 12 of these 13 images") for text in report.messages)


@pytest.mark.slow
@pytest.mark.parametrize("group_by", [None, r"(\d)\.jpg"])
def test_moved_and_renamed_training_data_is_recognized(photos, trained, tmp_path, group_by):
    run = tmp_path / "run"
    info = finetune(
        FinetuneSettings(
            data=photos,
            out=run,
            validation_fraction=0.5,
            group_by=group_by,
            network=NetworkSettings(size=64),
            cache=CacheSettings(directory=trained.cache),
        )
    )
    shutil.copytree(photos, tmp_path / "moved")
    for path in list((tmp_path / "moved").rglob("*.jpg")):
        path.rename(path.with_name(f"renamed_{path.name}"))
    result = evaluate(EvaluateSettings(run=run, data=tmp_path / "moved"))
    assert result["split"] == "validation"
    assert result["confusion"] == info["validation"]["confusion"]
    train = evaluate(EvaluateSettings(run=run, data=tmp_path / "moved", split="train"))
    assert train["images"] + result["images"] == 45


def test_a_missing_split_is_an_error(photos, trained, tmp_path):
    copy_part(photos, tmp_path / "other", slice(0, 3))
    with pytest.raises(DataError, match="no test images"):
        evaluate(EvaluateSettings(run=trained.run, data=tmp_path / "other", split="test"))


def test_the_default_is_the_test_split(photos, trained, tmp_path):
    copy_part(photos, tmp_path / "data" / "train", slice(0, 3))
    copy_part(photos, tmp_path / "data" / "test", slice(3, 5))
    result = evaluate(EvaluateSettings(run=trained.run, data=tmp_path / "data"))
    assert result["split"] == "test"
    assert result["images"] == 6


def test_an_unknown_class_is_an_error(photos, trained, tmp_path):
    copy_part(photos, tmp_path / "data", slice(0, 2))
    (tmp_path / "data" / "disc").rename(tmp_path / "data" / "dics")
    with pytest.raises(DataError, match="'dics'"):
        evaluate(EvaluateSettings(run=trained.run, data=tmp_path / "data"))


def test_a_missing_class_keeps_the_other_labels(photos, trained, tmp_path):
    """A class missing from DATA does not shift the labels of the others."""
    copy_part(photos, tmp_path / "data", slice(0, 5))
    shutil.rmtree(tmp_path / "data" / "disc")
    result = evaluate(EvaluateSettings(run=trained.run, data=tmp_path / "data"))
    assert result["per_class"]["disc"]["images"] == 0
    assert result["accuracy"] > 0.8


def test_failed_images_are_counted_but_not_evaluated(photos, trained, tmp_path):
    copy_part(photos, tmp_path / "data", slice(0, 2))
    (tmp_path / "data" / "disc" / "broken.jpg").write_bytes(b"x")
    result = evaluate(EvaluateSettings(run=trained.run, data=tmp_path / "data"))
    assert (result["images"], result["failed"]) == (6, 1)
