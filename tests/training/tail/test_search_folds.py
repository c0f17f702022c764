"""Depths are compared on folds of few images."""

from __future__ import annotations

import shutil

import pytest
import torch
from searches import pretrained, train

from tlcli.training.tail.start import mean_weights


def test_depths_are_compared_on_folds_of_few_images(photos, tmp_path, last_kept):
    classifier = train(pretrained(photos, tmp_path), tmp_path / "run")
    training, tried = classifier.training, classifier.training["tried"]
    kept = tried[training["best"]]
    assert kept["epochs"]
    assert training["folds"] == 3
    assert training["refit_epochs"] == 0
    assert classifier.validation.metrics["method"] == "3-fold"
    assert sorted(classifier.validation.images) == classifier.images.rows("train") == list(range(45))
    assert classifier.validation.metrics["accuracy"] == pytest.approx(kept["accuracy"])
    assert [(line["layer"], line["fold"], line["epoch"]) for line in classifier.lines] == [
        (row["layer"], fold, epoch + 1) for row in tried for fold in (1, 2, 3) for epoch in range(row["epochs"])
    ]
    assert {line["pictures"] for line in classifier.lines} == {30}, "each fold trains on the others"


def test_the_weights_of_folds_are_averaged():
    frozen = torch.randn(100)
    weights = [
        {"trained": torch.full((2,), value), "frozen": frozen.clone(), "count": torch.tensor(7)}
        for value in (1.0, 2.0, 6.0)
    ]
    mean = mean_weights(weights)
    assert mean["trained"].tolist() == [3.0, 3.0]
    assert mean["count"] == 7
    assert torch.equal(mean["frozen"], frozen), "to the last bit"


def test_one_image_of_each_class_leaves_no_depth_to_compare(photos, tmp_path, report):
    data = tmp_path / "data"
    for folder in photos.iterdir():
        (data / folder.name).mkdir(parents=True)
        shutil.copy(min(folder.iterdir()), data / folder.name)
    classifier = train(pretrained(data, tmp_path), tmp_path / "run", report)
    assert classifier.training is None
    assert classifier.extractor.cut.layer == classifier.extractor.cut.of
    assert any("the head alone is trained" in note for note in report.notes)
