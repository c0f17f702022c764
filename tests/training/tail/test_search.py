"""Which depths are tried, which one is kept, and that an interrupted search ends like an uninterrupted one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import count, pairwise

import numpy as np
import pytest
import torch

from tlcli.backbones.zoo import load_backbone
from tlcli.commands.finetune import OpenedRun, train_classifier
from tlcli.datasets.dataset import open_dataset
from tlcli.engines.choice import choose_engine
from tlcli.errors import ArtifactError
from tlcli.features.backbone import place_backbone
from tlcli.features.cache import FeatureCache
from tlcli.progress import Silent
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, TrainingSettings
from tlcli.settings.augmentation import FROM_SCRATCH_AUGMENTATION, Augmentation
from tlcli.settings.network import DEFAULT_BACKBONE
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.tail import checkpoints
from tlcli.training.tail.depths import AUGMENTED_FROM, candidate_depths
from tlcli.training.tail.search_progress import SearchProgress
from tlcli.training.tail.start import mean_weights


class RecordingReporter(Silent):
    """A reporter that keeps its notes."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


class Stop(Exception):
    """An interruption."""


class Stopping(Silent):
    """A reporter that interrupts after some notes on the progress of training; None never does."""

    def __init__(self, after=None, start="  epoch"):
        self.left = after
        self.start = start

    def note(self, text):
        if text.startswith(self.start) and self.left is not None:
            if not self.left:
                raise Stop
            self.left -= 1


def settings_for(data, cache, *, freeze="auto", backbone="lenet5", epochs=2, resume=False, **changes):
    return FinetuneSettings(
        data=data,
        out=cache / "run",
        resume=resume,
        network=NetworkSettings(backbone=backbone, weights="none", freeze=freeze),
        training=TrainingSettings(epochs=epochs, **changes),
        compute=ComputeSettings(batch_size=8, workers=1),
        augmentation=Augmentation(),
        cache=CacheSettings(directory=cache),
    )


def train(settings, directory, report=None):
    directory.mkdir(exist_ok=True)
    dataset = open_dataset(settings.data)
    opened = OpenedRun(
        settings=settings,
        out=directory,
        directory=directory,
        dataset=dataset,
        intensity=None,
        weighting=ClassWeighting(balance=settings.balance),
    )
    return train_classifier(opened, report or Silent(), lambda _: None)


def weights_of(classifier):
    return classifier.extractor.network.backbone.model.state_dict()


@pytest.fixture(scope="module")
def searched(photos, tmp_path_factory):
    """`--freeze auto`, uninterrupted."""
    root = tmp_path_factory.mktemp("searched")
    settings = settings_for(photos, root, epochs=4)
    return train(settings, root / "run"), settings


def open_lite():
    return place_backbone(
        load_backbone(DEFAULT_BACKBONE, "none", classes=3, size=32, seed=0),
        choose_engine("auto", "auto", "auto", images=0),
        fit="crop",
        intensity=None,
        cache=FeatureCache(None, Silent()),
        report=Silent(),
    )


def test_a_given_depth_is_the_only_candidate():
    (only,) = candidate_depths(open_lite(), "7")
    assert only.freeze == "7"


def test_auto_goes_from_deep_to_nothing_frozen():
    found = candidate_depths(open_lite(), "auto")
    assert found[-1].freeze == "none"
    assert found[-1].share == 1
    layers = [int(candidate.freeze) for candidate in found[:-1]]
    assert layers == sorted(set(layers), reverse=True)
    shares = [candidate.share for candidate in found]
    assert shares == sorted(shares)
    assert all(share >= least for share, least in zip(shares, (0.1, 0.25, 0.5, 1.0), strict=True))


def test_every_tried_depth_is_recorded(searched):
    classifier, _ = searched
    tried = classifier.training["tried"]
    assert tried[0]["epochs"] == 0, "the head alone comes first"
    assert tried[0]["gain"] is None
    layers = [row["layer"] for row in tried]
    assert layers == sorted(set(layers), reverse=True)
    for row in tried:
        assert row.keys() >= {"name", "parameters", "share", "accuracy", "error", "loss", "gain", "gain_error"}
        assert np.isfinite(row["loss"])
    assert all(before["parameters"] < after["parameters"] for before, after in pairwise(tried))
    assert sum(row["epochs"] for row in tried) == len(classifier.lines)
    assert [line["layer"] for line in classifier.lines] == [row["layer"] for row in tried for _ in range(row["epochs"])]
    json.dumps(classifier.training)


def test_a_search_that_keeps_the_head_gives_the_same_as_freezing_all_layers(searched, tmp_path):
    classifier, settings = searched
    assert classifier.training["best"] == 0
    frozen = train(
        replace(
            settings,
            network=replace(settings.network, freeze="all"),
            training=TrainingSettings(),
            compute=ComputeSettings(workers=1),
        ),
        tmp_path,
    )
    for name, tensor in weights_of(frozen).items():
        assert torch.equal(tensor, weights_of(classifier)[name]), name
    assert classifier.validation.metrics == frozen.validation.metrics
    assert classifier.calibration.temperature == frozen.calibration.temperature
    assert classifier.images.rows("validation") == []


def test_a_search_on_the_users_fraction_leaves_those_images_out(photos, tmp_path):
    settings = replace(settings_for(photos, tmp_path, epochs=1), validation_fraction=0.3)
    classifier = train(settings, tmp_path / "run")
    kept = classifier.training["tried"][classifier.training["best"]]
    assert classifier.extractor.cut.layer == kept["layer"]
    assert classifier.validation.metrics["method"] == "holdout"
    assert classifier.validation.metrics["accuracy"] == pytest.approx(kept["accuracy"])
    assert classifier.validation.metrics["loss"] == pytest.approx(kept["loss"], abs=1e-5)


def test_the_budget_is_kept(searched):
    classifier, settings = searched
    spent = sum(row["share"] * row["epochs"] for row in classifier.training["tried"])
    assert spent <= settings.training.epochs * 1.05


@pytest.fixture
def always_kept(monkeypatch):
    """Keep each tail with a lower loss, however small the difference."""
    monkeypatch.setattr(SearchProgress, "_is_better", lambda self, result: result.loss < self.tried[self.best]["loss"])


def test_a_kept_tail_is_trained_on_all_images_in_the_end(photos, tmp_path, always_kept):
    settings = settings_for(photos, tmp_path, epochs=4)
    classifier = train(settings, tmp_path / "run")
    kept = classifier.training["tried"][classifier.training["best"]]
    assert kept["epochs"]
    assert classifier.training["refit_epochs"] == max(1, round(kept["epochs"] / 4))
    refit = classifier.lines[-classifier.training["refit_epochs"] :]
    images = len(classifier.images.rows("train")) + len(classifier.images.rows("validation"))
    assert {line["layer"] for line in refit} == {kept["layer"]}
    assert all(line["pictures"] == images and line["validation_loss"] is None for line in refit)
    assert classifier.validation.metrics["loss"] == pytest.approx(kept["loss"], abs=1e-5), "of the weights before"
    assert classifier.splits.indices("validation") == [], "evaluate must not call images held out that were trained on"
    held_out = train(replace(settings, validation_fraction=0.2), tmp_path / "run")
    assert held_out.splits.indices("validation") == held_out.images.rows("validation")
    assert held_out.training["refit_epochs"] == 0
    assert any(not torch.equal(tensor, weights_of(held_out)[name]) for name, tensor in weights_of(classifier).items())


@pytest.fixture
def last_kept(monkeypatch):
    """Keep each tail, however bad."""
    monkeypatch.setattr(SearchProgress, "_is_better", lambda self, result: True)


def pretrained(data, cache, **changes):
    """Settings of a search that starts from pretrained weights, on images small enough for a test."""
    settings = replace(settings_for(data, cache, backbone=DEFAULT_BACKBONE, epochs=1, **changes), group_by="none")
    return replace(settings, network=replace(settings.network, weights="pretrained", size=32))


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


def test_one_image_of_each_class_leaves_no_depth_to_compare(photos, tmp_path):
    data = tmp_path / "data"
    for folder in photos.iterdir():
        (data / folder.name).mkdir(parents=True)
        shutil.copy(min(folder.iterdir()), data / folder.name)
    notes = RecordingReporter()
    classifier = train(pretrained(data, tmp_path), tmp_path / "run", notes)
    assert classifier.training is None
    assert classifier.extractor.cut.layer == classifier.extractor.cut.of
    assert any("the head alone is trained" in note for note in notes.notes)


@pytest.mark.slow
def test_an_interrupted_search_in_folds_ends_like_an_uninterrupted_one(photos, tmp_path, monkeypatch, last_kept):
    """With a checkpoint after every third step: each writes all weights."""
    save, steps = checkpoints.Checkpoints.save_if_due, count()

    def save_sometimes(self, make, *, now=False):
        save(self, make, now=now or next(steps) % 3 == 0)

    monkeypatch.setattr(checkpoints.Checkpoints, "save_if_due", save_sometimes)
    settings = pretrained(photos, tmp_path)
    whole = train(settings, tmp_path / "whole")
    settings, stopped = replace(settings, resume=True), 0
    for after in (0, 0, 2):
        try:
            train(settings, tmp_path / "run", Stopping(after, "  fold"))
        except Stop:
            stopped += 1
    assert stopped == 3
    again = train(settings, tmp_path / "run")
    for name, tensor in weights_of(whole).items():
        assert torch.equal(tensor, weights_of(again)[name]), name
    assert timeless(again.lines) == timeless(whole.lines)
    assert timeless(again.training["tried"]) == timeless(whole.training["tried"])
    assert again.validation.metrics == whole.validation.metrics
    assert again.novelty.novelty.to_bytes() == whole.novelty.novelty.to_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("is_kept", [False, True])
def test_an_interrupted_search_ends_like_an_uninterrupted_one(photos, tmp_path, monkeypatch, request, is_kept):
    """Stopped again and again, within a depth, between depths, and in the last training on all images."""
    if is_kept:
        request.getfixturevalue("always_kept")
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    settings = settings_for(photos, tmp_path, epochs=4)
    whole = train(settings, tmp_path / "whole")
    epochs = len(whole.lines)
    stopped = 0
    for after in (0, 1, 0, *((epochs - 4,) if is_kept else (2,))):
        settings = replace(settings, resume=True)
        try:
            train(settings, tmp_path / "run", Stopping(after))
        except Stop:
            stopped += 1
    assert stopped > 1
    again = train(settings, tmp_path / "run")
    for name, tensor in weights_of(whole).items():
        assert torch.equal(tensor, weights_of(again)[name]), name
    assert timeless(again.lines) == timeless(whole.lines)
    assert timeless(again.training["tried"]) == timeless(whole.training["tried"])
    assert again.training["best"] == whole.training["best"]
    assert again.calibration.temperature == whole.calibration.temperature
    assert again.validation.metrics == whole.validation.metrics


def timeless(rows):
    return [{name: row[name] for name in row if name not in {"seconds", "waited"}} for row in rows]


def test_resuming_at_another_depth_is_refused(photos, tmp_path):
    settings = settings_for(photos, tmp_path, freeze="2", epochs=1)
    train(settings, tmp_path / "run")
    deeper = replace(settings, resume=True, network=replace(settings.network, freeze="3"))
    with pytest.raises(ArtifactError, match="freeze was '2' and is '3'"):
        train(deeper, tmp_path / "run")


@pytest.mark.slow
def test_auto_tries_only_all_and_none_if_a_network_cannot_be_cut(photos, tmp_path):
    """twins can't be traced."""
    settings = settings_for(photos, tmp_path, backbone="twins_svt_small", epochs=1)
    settings = replace(settings, network=replace(settings.network, size=32))
    classifier = train(settings, tmp_path / "run")
    assert [row["freeze"] for row in classifier.training["tried"]] == ["all", "none"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        (None, None, FROM_SCRATCH_AUGMENTATION),
        (Augmentation(), Augmentation(), Augmentation()),
    ],
)
def test_auto_augments_only_long_tails_by_default(photos, tmp_path, asked, first, last):
    settings = replace(settings_for(photos, tmp_path, epochs=4), augmentation=asked)
    tried = train(settings, tmp_path / "run").training["tried"]
    assert tried[0]["augmentation"] is None, "the head is fitted on plain images"
    assert tried[1]["share"] < AUGMENTED_FROM
    assert tried[1]["augmentation"] == (first and first.to_json())
    deep = [row for row in tried if row["share"] >= AUGMENTED_FROM]
    assert deep
    assert all(row["augmentation"] == last.to_json() for row in deep)


@pytest.mark.slow
def test_a_nan_loss_leaves_the_best_weights(photos, tmp_path):
    """A network without norms, and a learning rate at which it diverges."""
    settings = settings_for(photos, tmp_path, freeze="none", backbone="test_nfnet", epochs=12, learning_rate=10.0)
    settings = replace(settings, network=replace(settings.network, size=32))
    classifier = train(settings, tmp_path / "run")
    assert classifier.stopped is not None
    assert classifier.stopped.startswith("epoch ")
    assert classifier.training["stopped"] == classifier.stopped
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(classifier).values())
    assert np.isfinite(classifier.validation.metrics["loss"])
