"""Depths are compared on folds of few images."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from searches import Notes, pretrained, train, weights_of

from tlcli.training.tail.fit import fit_tail
from tlcli.training.tail.loop import TailTrainer
from tlcli.training.tail.start import copied_weights


def test_depths_are_compared_on_folds_of_few_images(photos, tmp_path, last_kept):
    classifier = train(pretrained(photos, tmp_path), tmp_path / "run")
    training, tried = classifier.training, classifier.training["tried"]
    kept = tried[training["best"]]
    assert kept["epochs"]
    assert training["folds"] == 3
    assert training["refit_epochs"] == sum(row["epochs"] for row in tried), "each starts from the one before"
    assert classifier.validation.metrics["method"] == "3-fold"
    assert sorted(classifier.validation.images) == classifier.images.rows("train") == list(range(45))
    assert classifier.validation.metrics["accuracy"] == pytest.approx(kept["accuracy"])
    assert [(line["layer"], line["fold"], line["epoch"]) for line in classifier.lines] == [
        (row["layer"], fold, epoch + 1)
        for folds in ((1, 2, 3), (None,))
        for row in tried
        for fold in folds
        for epoch in range(row["epochs"])
    ]
    assert {line["pictures"] for line in classifier.lines if line["fold"]} == {30}, "each fold trains on the others"
    assert {line["pictures"] for line in classifier.lines if not line["fold"]} == {45}, "and the kept network on all"


@pytest.mark.slow
def test_the_network_kept_is_that_trained_on_all_images(photos, tmp_path, last_kept, monkeypatch):
    """Training on all images starts from the head of all images, and gives the weights that the run keeps."""
    ends = []

    def fit_and_keep(data, *arguments, **options):
        fitted = fit_tail(data, *arguments, **options)
        ends.append((data.images.rows("validation"), copied_weights(data.extractor.network)))
        return fitted

    monkeypatch.setattr("tlcli.training.tail.search.fit_tail", fit_and_keep)
    kept = weights_of(train(pretrained(photos, tmp_path), tmp_path / "run"))
    held_out, last = ends[-1]
    assert held_out == []
    assert all(torch.equal(tensor, last[name]) for name, tensor in kept.items())
    assert not any(all(torch.equal(tensor, end[name]) for name, tensor in kept.items()) for _, end in ends[:-1])


@pytest.mark.slow
def test_training_on_all_images_that_does_not_end_leaves_that_of_a_fold(photos, tmp_path, last_kept, monkeypatch):
    """Time is up in the first training that has no validation images."""
    monkeypatch.setattr(TailTrainer, "_past_deadline", lambda trainer: trainer._data.validation is None)
    report = Notes()
    classifier = train(replace(pretrained(photos, tmp_path), budget="1h"), tmp_path / "run", report)
    assert classifier.extractor.cut.layer < classifier.extractor.cut.of
    assert classifier.training["refit_epochs"] == 0
    assert not classifier.refitted
    assert any("did not finish" in note for note in report.notes)
    assert classifier.novelty is not None


@pytest.mark.parametrize("each", [1, 13])
def test_depths_are_not_compared_on_very_few_images(photos, tmp_path, report, each):
    data = tmp_path / "data"
    for folder in photos.iterdir():
        (data / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:each]:
            shutil.copy(file, data / folder.name)
    classifier = train(pretrained(data, tmp_path), tmp_path / "run", report)
    assert classifier.training is None
    assert classifier.extractor.cut.layer == classifier.extractor.cut.of
    assert any("the head alone is trained" in note for note in report.notes)
