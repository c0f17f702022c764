"""finetune with trainable layers: freeze depths, contents of the run, and what it predicts."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from tail_runs import SIZE, lines_of, settings_for

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.commands.evaluate import evaluate
from tlcli.commands.finetune import finetune
from tlcli.commands.predict import predict
from tlcli.errors import DataError
from tlcli.progress import Silent
from tlcli.runs.run import load_run
from tlcli.settings import ComputeSettings, EvaluateSettings, PredictSettings
from tlcli.settings.augmentation import PRESETS

NETWORKS = {
    "blocks.4": {},
    "9": {"backbone": "test_convnext", "weights": "none"},
    "none": {"backbone": "lenet5", "weights": "none"},
    "auto": {"backbone": "test_efficientnet", "weights": "none"},
}
"""The network for each kind of --freeze: the pretrained one is slow."""


@pytest.fixture(
    scope="module",
    params=[name if name == "none" else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
)
def tuned(request, photos, cache, tmp_path_factory):
    """A run with each kind of --freeze, and the result of finetune."""
    network = NETWORKS[request.param]
    run = tmp_path_factory.mktemp("tuned") / "run"
    training = {"epochs": 3, "learning_rate": 0.01 if network else 1e-4}
    none = PRESETS["none"]  # without augmentation, features are computed once instead of in every epoch
    settings = settings_for(photos, run, cache, request.param, network=network, training=training, augmentation=none)
    compute = ComputeSettings(workers=1, batch_size=8)
    return run, finetune(replace(settings, validation_fraction=0.4, compute=compute))


def test_run_stores_the_freeze_depth_and_all_candidates(tuned):
    run, info = tuned
    option = info["settings"]["freeze"]
    freeze, training = info["freeze"], info["training"]
    assert freeze.keys() == {"layer", "name", "of"}
    assert load_run(run).info["training"] == training
    if option == "blocks.4":
        assert freeze["name"].startswith("blocks.4.")
    if option == "9":
        assert freeze["layer"] == 9
    if option == "none":
        assert freeze["layer"] == 0
        assert freeze["name"] == ""
    assert training["tried"][training["best"]]["layer"] == freeze["layer"]
    assert training["stopped"] is None
    assert len(training["tried"]) == 1 or option == "auto"
    assert len(training["tried"]) > 1 or option != "auto"
    assert len(lines_of(run)) == sum(row["epochs"] for row in training["tried"])
    assert info["validation"]["method"] == "holdout"
    assert info["images"]["train"] + info["images"]["validation"] == 45
    assert not (run / "checkpoint").exists()
    assert not (run / ".unfinished").exists()


def test_evaluate_and_predict_agree_with_the_run(tuned, photos):
    run, info = tuned
    evaluated = evaluate(EvaluateSettings(run=run, data=photos, compute=ComputeSettings(workers=1)))
    assert evaluated["split"] == "validation"
    assert evaluated["accuracy"] == info["validation"]["accuracy"]
    assert evaluated["confusion"] == info["validation"]["confusion"]
    assert evaluated["loss"] == pytest.approx(info["validation"]["loss"], abs=1e-4)
    stored = pq.read_table(run / "predictions.parquet").to_pylist()
    found = predict(PredictSettings(run=run, inputs=tuple(row["path"] for row in stored), probabilities=True))
    for row, known in zip(found.rows, stored, strict=True):
        assert row["label"] == known["predicted"]
        probabilities = [row[f"p:{name}"] for name in info["classes"]]
        np.testing.assert_allclose(probabilities, known["probabilities"], atol=1e-4)


def test_timm_loads_the_run(tuned):
    run, info = tuned
    if info["backbone"] == "lenet5":
        pytest.skip("timm has no LeNet-5")
    model = timm.create_model(f"local-dir:{run}", pretrained=True)
    for name, tensor in load_run(run).weights().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_only_the_tail_changes(tuned):
    """Weights and BatchNorm statistics of the frozen layers stay bit for bit the pretrained ones."""
    run, info = tuned
    weights = NETWORKS[info["settings"]["freeze"]].get("weights", "pretrained")
    backbone = load_backbone(info["backbone"], weights, classes=3, size=SIZE)
    layer = info["freeze"]["layer"]
    whole = layer == info["freeze"]["of"]
    tail = cut_at(backbone, "all" if whole else str(layer or "none")).tail
    trained = dict(tail.named_parameters()).keys()
    after, before = load_run(run).weights(), backbone.model.state_dict()
    assert after.keys() == before.keys()
    assert any(row["best_epoch"] for row in info["training"]["tried"] if row["layer"] == layer) or whole
    frozen = before.keys() - tail.state_dict().keys()
    assert frozen or layer == 0
    for name in frozen:
        assert torch.equal(before[name], after[name]), name
    for name in trained:
        assert not torch.equal(before[name], after[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", [None, PRESETS["light"]])
def test_cached_features_give_the_same_run(photos, cache, tmp_path, augmentation):
    """With augmentation, two cached views equal the views of two epochs."""
    for name, root in (("cached", cache), ("streamed", None)):
        out = tmp_path / name
        training = {"epochs": 2, "views": 2} if augmentation and name == "cached" else {"epochs": 2}
        changes = {"training": training, "augmentation": augmentation, "network": NETWORKS["auto"]}
        finetune(settings_for(photos, out, root, "blocks.3", **changes))
    assert lines_of(tmp_path / "cached") == lines_of(tmp_path / "streamed")
    one, other = (load_run(tmp_path / name).weights() for name in ("cached", "streamed"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


class DeletingReporter(Silent):
    """A reporter that deletes images when training starts."""

    def __init__(self, *paths):
        self.paths = paths
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)

    def note(self, text):
        if text.startswith("Training"):
            for path in self.paths:
                path.unlink(missing_ok=True)


@pytest.mark.slow
def test_images_deleted_during_training_are_listed(photos, tmp_path):
    """One training image and one test image are left out."""
    data = tmp_path / "data"
    for index, path in enumerate(sorted(photos.glob("*/*"))):
        split = ("train", "train", "train", "validation", "test")[index % 5]
        copy = data / split / path.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    of_train, of_test = (sorted((data / split).glob("*/*"))[0] for split in ("train", "test"))
    before = {split: len(list((data / split).glob("*/*"))) for split in ("train", "validation", "test")}
    settings = settings_for(
        data, tmp_path / "run", None, "none", network={"backbone": "lenet5", "weights": "none", "size": None}
    )
    report = DeletingReporter(of_train, of_test)
    info = finetune(settings, report)
    assert info["images"]["failed"] == 2
    assert {row["path"] for row in info["data"]["failed"]} == {str(of_train), str(of_test)}
    assert all(row["error"] for row in info["data"]["failed"])
    assert len([text for text in report.warnings if "left out" in text]) == 2
    assert not [text for text in report.warnings if "held out" in text], "DATA has its own validation images"
    assert info["images"]["train"] == before["train"] - 1
    assert info["images"]["validation"] == before["validation"]
    assert info["images"]["test"] == before["test"] - 1
    predictions = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pylist()
    assert len(predictions) == before["validation"] + before["test"] - 1


@pytest.mark.slow
def test_equal_seeds_give_equal_weights(photos, cache, tmp_path):
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / str(number)
        finetune(settings_for(photos, out, cache, "2", network={"backbone": "lenet5", "weights": "none", "seed": seed}))
        weights.append(load_run(out).weights()["head.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_streamed_features_of_random_weights_can_be_trained_on(photos, tmp_path):
    """Without a cache, the prefix runs in inference mode, but its weights must not become inference tensors."""
    network = {"backbone": "lenet5", "weights": "none"}
    info = finetune(settings_for(photos, tmp_path / "run", None, "2", network=network))
    assert info["freeze"]["layer"] == 2
    assert info["training"]["stopped"] is None
    assert len(lines_of(tmp_path / "run")) == 1


def test_balance_with_trainable_layers(photos, cache, tmp_path):
    network = {"backbone": "lenet5", "weights": "none"}
    info = finetune(settings_for(photos, tmp_path / "run", cache, "2", network=network, balance=True))
    rows = pq.read_table(tmp_path / "run" / "splits.parquet").to_pylist()
    assert np.exp(info["log_prior"]).sum() == pytest.approx(1)
    assert len(info["log_prior"]) == 3
    assert sum(row["split"] == "train" for row in rows) == info["images"]["train"]
    evaluated = evaluate(EvaluateSettings(run=tmp_path / "run", data=photos, compute=ComputeSettings(workers=1)))
    assert evaluated["loss"] == pytest.approx(info["validation"]["loss"], abs=1e-4)


@pytest.mark.slow
def test_infinite_loss_leaves_a_usable_run(photos, cache, tmp_path):
    """A network without normalization layers diverges at a high learning rate."""
    run = tmp_path / "run"
    network = {"backbone": "test_nfnet", "weights": "none"}
    training = {"epochs": 12, "learning_rate": 10.0}
    with pytest.raises(DataError, match=r"became NaN or infinite at epoch \d+, step \d+\. .*holds the best weights"):
        finetune(settings_for(photos, run, cache, "none", network=network, training=training))
    loaded = load_run(run)
    assert loaded.info["training"]["stopped"].startswith("epoch ")
    assert all(torch.isfinite(tensor).all() for tensor in loaded.weights().values())
    evaluated = evaluate(EvaluateSettings(run=run, data=photos, compute=ComputeSettings(workers=1)))
    assert evaluated["accuracy"] == loaded.info["validation"]["accuracy"]
