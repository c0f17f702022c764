"""Which depths are tried, and which one is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from searches import settings_for, train, weights_of

from tlcli.backbones.zoo import load_backbone
from tlcli.engines.choice import choose_engine
from tlcli.features.backbone import place_backbone
from tlcli.features.cache import FeatureCache
from tlcli.progress import Silent
from tlcli.settings import ComputeSettings, TrainingSettings
from tlcli.settings.network import DEFAULT_BACKBONE
from tlcli.training.tail.depths import candidate_depths


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
    assert all(share >= least for share, least in zip(shares, (0.25, 0.5, 1.0), strict=True))


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


@pytest.mark.slow
def test_auto_tries_only_all_and_none_if_a_network_cannot_be_cut(photos, tmp_path):
    """twins can't be traced."""
    settings = settings_for(photos, tmp_path, backbone="twins_svt_small", epochs=1)
    settings = replace(settings, network=replace(settings.network, size=32))
    classifier = train(settings, tmp_path / "run")
    assert [row["freeze"] for row in classifier.training["tried"]] == ["all", "none"]


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
