"""A run as a backbone: its network, preprocessing, and feature cache."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from continued_runs import CUT, continue_from, with_class
from head_runs import settings_for

from tlcli.commands.cache_features import cache_features
from tlcli.commands.check import check
from tlcli.commands.finetune import finetune
from tlcli.errors import ArtifactError, UsageError
from tlcli.runs.run import load_run
from tlcli.settings import CacheFeaturesSettings, CacheSettings, CheckSettings, NetworkSettings
from tlcli.storage.files import sealed


def cache_of(data, cache, **network):
    return cache_features(
        CacheFeaturesSettings(data=data, network=NetworkSettings(**network), cache=CacheSettings(directory=cache))
    )


def test_an_added_class_gives_the_same_run_as_training_from_scratch(photos, trained, draw, tmp_path):
    data, cache = with_class(photos, tmp_path / "photos", draw), tmp_path / "cache"
    finetune(settings_for(photos, tmp_path / "before", cache))
    continued = continue_from(trained.run, data, tmp_path / "continued", cache)
    assert continued["images"]["computed"] == 12
    scratch = finetune(settings_for(data, tmp_path / "scratch", tmp_path / "other"))
    assert scratch["images"]["computed"] == 57
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("continued", "scratch")]
    assert weights[0] == weights[1]
    for key in ("backbone", "classes", "preprocessing", "temperature", "cache"):
        assert continued[key] == scratch[key], key
    assert continued["validation"]["accuracy"] == scratch["validation"]["accuracy"]


def test_untuned_layers_share_the_cache_of_the_backbone(photos, trained, tuned, tmp_path):
    reused = cache_of(photos, trained.cache, backbone=str(trained.run))
    assert (reused["computed"], reused["reused"]) == (0, 45)

    random = {"backbone": "test_efficientnet", "weights": "none", "size": 32, "fit": "squash"}
    original = cache_of(photos, tmp_path, freeze=CUT, **random)
    before_the_cut = cache_of(photos, tmp_path, backbone=str(tuned), freeze=CUT)
    assert (before_the_cut["computed"], before_the_cut["cache"]) == (0, original["cache"])

    untuned = cache_of(photos, tmp_path, **random)
    tuned_features = cache_of(photos, tmp_path, backbone=str(tuned))
    assert (tuned_features["computed"], tuned_features["cache"] == untuned["cache"]) == (45, False)
    assert cache_of(photos, tmp_path, backbone=str(tuned))["computed"] == 0


def test_a_new_head_on_tuned_layers_keeps_their_weights_and_preprocessing(photos, tuned, draw, tmp_path):
    data = with_class(photos, tmp_path / "photos", draw)
    info = continue_from(tuned, data, tmp_path / "run", tmp_path / "cache")
    parent, child = load_run(tuned), load_run(tmp_path / "run")
    assert child.preprocessing == parent.preprocessing
    assert (info["settings"]["fit"], info["backbone"]) == ("squash", "test_efficientnet")
    before, after = parent.weights(), child.weights()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_size_and_fit_can_be_changed(photos, tuned, tmp_path):
    info = continue_from(tuned, photos, tmp_path / "run", tmp_path / "cache", network={"size": 48, "fit": "pad"})
    assert (info["preprocessing"]["width"], info["preprocessing"]["fit"]) == (48, "pad")


def test_check_takes_a_run(photos, trained):
    cache = CacheSettings(directory=trained.cache)
    result = check(CheckSettings(data=photos, network=NetworkSettings(backbone=str(trained.run)), cache=cache))
    assert (result.computed, result.reused, result.side) == (0, 45, 64)


def unfinished(run):
    (run / "run.json").unlink()
    (run / ".unfinished").touch()


def damaged(run):
    with (run / "model.safetensors").open("r+b") as file:
        file.write(b"x")


def of_another_format(run):
    content = json.loads((run / "run.json").read_text())
    del content["sha256"]
    (run / "run.json").write_text(json.dumps(sealed(content | {"format": 99})))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unfinished, "did not finish"),
        (damaged, "model.safetensors was changed"),
        (of_another_format, "run format 99; this version of tlcli reads 1"),
    ],
)
def test_runs_that_cannot_be_continued(trained, photos, tmp_path, change, message):
    run = tmp_path / "parent"
    shutil.copytree(trained.run, run)
    change(run)
    with pytest.raises(ArtifactError, match=message):
        continue_from(run, photos, tmp_path / "run", trained.cache)
    assert not (tmp_path / "run").exists()


def test_options_that_contradict_a_run(trained, photos, tmp_path):
    with pytest.raises(UsageError, match="--weights has no effect"):
        continue_from(trained.run, photos, tmp_path / "run", trained.cache, network={"weights": "none"})
    with pytest.raises(UsageError, match="is the run of --backbone"):
        continue_from(trained.run, photos, trained.run, trained.cache, overwrite=True)
    with pytest.raises(UsageError, match="no backbone and no run"):
        continue_from(tmp_path / "nowhere", photos, tmp_path / "run", trained.cache)
    assert not (tmp_path / "run").exists()
