"""check finds planted problems and nothing else, and changes nothing."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from checked_patterns import CLASSES, checked, content, found, pattern, save
from PIL import Image, ImageEnhance

from tlcli.commands.check import check
from tlcli.datasets.dataset import open_dataset
from tlcli.features.similar_samples import find_similar_samples
from tlcli.settings import CacheSettings, CheckSettings, NetworkSettings


def test_a_clean_dataset_has_no_findings(clean, cache):
    result = checked(clean, cache)
    assert result.findings == ()
    assert result.labels.checked == 54
    assert result.labels.accuracy > 0.95
    assert result.counts == dict.fromkeys(CLASSES, 12)


def test_planted_problems_are_found_and_nothing_else(data, cache):
    shutil.copy(data / "train/dots/00.jpg", data / "train/dots/copy.jpg")
    shutil.copy(data / "train/dots/01.jpg", data / "test/dots/leak.jpg")
    again = Image.open(data / "train/stripes/02.jpg")
    save(again.resize((72, 60)), data / "train/stripes/again.jpg", quality=60)
    brighter = ImageEnhance.Brightness(Image.open(data / "train/checks/03.jpg")).enhance(0.85)
    save(brighter.crop((4, 3, 92, 77)), data / "val/checks/cropped.jpg", quality=75)
    shutil.copy(data / "train/stripes/05.jpg", data / "train/checks/two.jpg")
    save(pattern("stripes", 100), data / "train/dots/wrong.jpg")
    save(pattern("dots", 101), data / "test/checks/wrong.jpg")
    whole = (data / "train/dots/04.jpg").read_bytes()
    (data / "train/dots/cut.jpg").write_bytes(whole[: len(whole) // 2])
    save(pattern("stripes", 102, size=(40, 30)), data / "train/stripes/small.jpg")
    before = content(data)

    result = checked(data, cache)
    assert found(result, data) == {
        "unreadable": {("train/dots/cut.jpg",)},
        "duplicate": {
            ("train/dots/copy.jpg", "train/dots/00.jpg"),
            ("test/dots/leak.jpg", "train/dots/01.jpg"),
            ("train/stripes/05.jpg", "train/checks/two.jpg"),
        },
        "near-duplicate": {
            ("train/stripes/again.jpg", "train/stripes/02.jpg"),
            ("val/checks/cropped.jpg", "train/checks/03.jpg"),
        },
        "leak": {("test/dots/leak.jpg", "train/dots/01.jpg"), ("val/checks/cropped.jpg", "train/checks/03.jpg")},
        "conflict": {("train/stripes/05.jpg", "train/checks/two.jpg")},
        "suspect": {("train/dots/wrong.jpg",), ("test/checks/wrong.jpg",), ("train/checks/two.jpg",)},
        "tiny": {("train/stripes/small.jpg",)},
    }
    assert content(data) == before
    suggested = {os.path.basename(finding.path): finding.other_label for finding in result.of_kind("suspect")}  # noqa: PTH119
    assert suggested["two.jpg"] == "stripes"
    (unreadable,) = result.of_kind("unreadable")
    assert "truncated" in unreadable.detail
    for finding in result.of_kind("near-duplicate"):
        assert 0.93 <= finding.score <= 1


@pytest.mark.slow
def test_mislabeled_near_duplicates_do_not_confirm_each_other(data, cache):
    for number in range(2):
        save(pattern("dots", 200), data / "train" / "checks" / f"wrong{number}.jpg", quality=90 - 25 * number)
    result = checked(data, cache)
    assert found(result, data)["suspect"] == {("train/checks/wrong0.jpg",), ("train/checks/wrong1.jpg",)}


@pytest.mark.slow
def test_cached_features_give_the_same_findings(data, cache):
    save(pattern("dots", 300), data / "train" / "checks" / "wrong.jpg")
    save(pattern("stripes", 301, size=(20, 20)), data / "train" / "stripes" / "small.jpg")
    for path in (data / "train").rglob("*.jpg"):
        os.utime(path, (1e9, 1e9))
    first, again = checked(data, cache), checked(data, cache)
    assert again.computed == 0
    assert again.reused == 56
    assert first.findings == again.findings


@pytest.mark.slow
def test_without_splits_there_are_no_leaks_and_no_cache_writes_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setenv("TLCLI_CACHE", str(tmp_path / "cache"))
    shutil.copy(data / "train/dots/00.jpg", data / "train/dots/x.jpg")
    settings = CheckSettings(data=data / "train", network=NetworkSettings(size=64), cache=CacheSettings(enabled=False))
    assert found(check(settings), data) == {"duplicate": {("train/dots/x.jpg", "train/dots/00.jpg")}}
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_small_classes_are_reported_and_their_labels_not_checked(data, cache):
    for seed in range(3):
        image = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (80, 96, 3)).astype(np.uint8))
        save(image, data / "train" / "noise" / f"{seed}.jpg")
    result = checked(data, cache)
    assert [(finding.kind, finding.label) for finding in result.findings] == [("small-class", "noise")]
    assert result.labels.checked == 54


def test_only_extreme_imbalance_is_a_finding(tmp_path, cache):
    from tlcli.checking.image_checks import balance_findings

    assert balance_findings({"a": 1000, "b": 10}) == []
    (finding,) = balance_findings({"a": 1001, "b": 10})
    assert (finding.kind, finding.label, finding.other_label) == ("imbalance", "b", "a")
    assert [finding.kind for finding in balance_findings({"a": 0, "b": 10})] == ["small-class"]


def test_tiny_images_are_not_reported_if_most_images_are_tiny(clean):
    from tlcli.checking.image_checks import tiny_findings

    samples = open_dataset(clean)
    some = {0: (111, 500), 1: (500, 111), 2: (112, 500), 3: (500, 500), 4: (300, 300)}
    assert [finding.detail[:9] for finding in tiny_findings(samples, some, 224)] == ["111 x 500", "500 x 111"]
    most = {0: (111, 500), 1: (500, 111), 2: (50, 50), 3: (500, 500)}
    assert tiny_findings(samples, most, 224) == []


def test_too_few_images_and_no_readable_images(tmp_path, draw, cache):
    for name in ("a", "b"):
        for number in range(2):
            draw(tmp_path / "few" / name / f"{number}.png", seed=ord(name) * 10 + number, size=(60, 50))
    result = checked(tmp_path / "few", cache)
    assert {finding.kind for finding in result.findings} == {"small-class"}
    assert (result.labels.checked, result.labels.accuracy) == (0, None)
    for path in (tmp_path / "few").rglob("*.png"):
        path.write_bytes(b"nothing")
    result = checked(tmp_path / "few", cache)
    assert len(result.of_kind("unreadable")) == 4
    assert result.to_json()["shorter_side"] is None


@pytest.mark.slow
def test_images_of_one_group_do_not_confirm_each_other(data, cache):
    """Two mislabeled images of one scene are too different to be near duplicates."""
    for number in range(2):
        save(pattern("dots", 400 + number), data / "train" / "checks" / f"scene7_{number}.jpg")
    result = checked(data, cache, group_by=r"scene\d+")
    assert {Path(finding.path).name for finding in result.of_kind("suspect")[:2]} == {"scene7_0.jpg", "scene7_1.jpg"}


def test_without_groups_no_similar_images_are_looked_for(clean, cache, monkeypatch):
    searched = []

    def find(*arguments):
        searched.append(arguments)
        return find_similar_samples(*arguments)

    monkeypatch.setattr("tlcli.commands.check.find_similar_samples", find)
    checked(clean, cache)
    assert len(searched) == 1
    assert not checked(clean, cache, group_by="none").findings, "none is no pattern to search for in paths"
    assert len(searched) == 1
