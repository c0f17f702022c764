"""finetune of the head, from a folder of drawn images to a run that other programs can load."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from head_runs import settings_for

from tlcli.commands.finetune import finetune
from tlcli.errors import ArtifactError, UsageError
from tlcli.runs.run import load_run
from tlcli.settings import CacheSettings, FinetuneSettings, NetworkSettings
from tlcli.training.head import fit, sweep
from tlcli.training.head.softmax_regression import WITHIN_WEIGHT


def test_learns_simple_shapes_and_reports_accuracy(trained):
    info = trained.info
    assert info["validation"]["method"].endswith("-fold")
    assert info["validation"]["accuracy"] > 0.8
    assert info["validation"]["images"] == info["images"]["train"] == 45
    assert info["test"] is None
    assert info["freeze"]["layer"] == info["freeze"]["of"]
    assert info["classes"] == ["disc", "square", "stripes"]
    low, high = info["validation"]["interval"]
    assert low < info["validation"]["accuracy"] <= high


def test_too_few_images_have_no_learning_curve(trained):
    curve = load_run(trained.run).info["learning_curve"]
    assert (curve["points"], curve["forecast"]) == ([], None)
    assert "fewer than 20 images per class" in curve["reason"]


def test_the_learning_curve_is_in_run_json(photos, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "FEWEST_PER_CLASS", 5)
    info = finetune(settings_for(photos, tmp_path / "run", trained.cache))
    points = info["learning_curve"]["points"]
    assert len(points) == 4
    assert points[-1]["accuracy"] == pytest.approx(info["validation"]["accuracy"])
    assert [point["images"] for point in points] == sorted(point["images"] for point in points)
    assert info["learning_curve"]["reason"], "too few errors"
    assert "Accuracy by the number of training images" in (tmp_path / "run" / "report.html").read_text()


def test_second_run_reuses_features_and_gives_the_same_weights(photos, trained, tmp_path):
    again = finetune(settings_for(photos, tmp_path / "again", trained.cache))
    assert again["images"]["computed"] == 0
    assert again["images"]["reused"] == 45
    first = load_run(trained.run).weights()
    for name, tensor in load_run(tmp_path / "again").weights().items():
        assert torch.equal(tensor, first[name]), name


@pytest.mark.slow
def test_without_cache_gives_the_same_weights(photos, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("TLCLI_CACHE", str(tmp_path / "untouched"))
    settings = FinetuneSettings(
        data=photos, out=tmp_path / "run", network=NetworkSettings(size=64), cache=CacheSettings(enabled=False)
    )
    info = finetune(settings)
    assert info["images"]["computed"] == 45
    assert not (tmp_path / "untouched").exists()
    torch.testing.assert_close(
        load_run(tmp_path / "run").weights()["classifier.weight"], load_run(trained.run).weights()["classifier.weight"]
    )


def test_timm_loads_the_run(photos, trained):
    """The saved network in plain timm gives the same probabilities as tlcli."""
    model = timm.create_model(f"local-dir:{trained.run}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    assert list(config["input_size"]) == [3, 64, 64]
    run = load_run(trained.run)
    assert model.pretrained_cfg["label_names"] == list(run.classes)

    from tlcli.images.worker import DecodeOptions, read_image
    from tlcli.inference.predictor import Predictor

    paths = sorted(photos.rglob("*.jpg"))[:6]
    pixels = np.stack(
        [
            np.frombuffer(read_image(str(path), DecodeOptions(preprocessing=run.preprocessing)).pixels, np.uint8)
            for path in paths
        ]
    ).reshape(len(paths), 64, 64, 3)
    mean, std = (torch.tensor(config[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    images = (torch.tensor(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        expected = torch.softmax(model(images) / run.temperature, dim=1)
    predictor = Predictor(run)
    found = predictor.probabilities(predictor.model.run(pixels).logits)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_finetune_evaluate_and_predict_agree(photos, trained, tmp_path):
    """A held-out image gets the same probabilities from all three commands."""
    from tlcli.commands.evaluate import evaluate
    from tlcli.commands.predict import predict
    from tlcli.settings import EvaluateSettings, PredictSettings

    run = tmp_path / "run"
    info = finetune(settings_for(photos, run, trained.cache, validation_fraction=0.4))
    held_out = pq.read_table(run / "predictions.parquet").to_pylist()
    assert {row["split"] for row in held_out} == {"validation"}
    assert 5 < len(held_out) == info["images"]["validation"] < 30
    assert info["images"]["train"] + len(held_out) == 45

    predict(
        PredictSettings(
            run=run,
            inputs=tuple(row["path"] for row in held_out),
            out=str(tmp_path / "rows.parquet"),
            probabilities=True,
        )
    )
    for row, stored in zip(pq.read_table(tmp_path / "rows.parquet").to_pylist(), held_out, strict=True):
        found = [row[f"p:{name}"] for name in info["classes"]]
        np.testing.assert_allclose(found, stored["probabilities"], atol=2e-6)
        assert row["label"] == stored["predicted"]

    evaluated = evaluate(EvaluateSettings(run=run, data=photos))
    assert evaluated["split"] == "validation"
    assert evaluated["confusion"] == info["validation"]["confusion"]
    assert evaluated["loss"] == pytest.approx(info["validation"]["loss"], abs=1e-5)


def test_refit_trains_the_head_on_the_validation_images_as_well(photos, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "L2S", (0.1,))
    monkeypatch.setattr(sweep, "FEW_IMAGES_WITHIN_WEIGHT", WITHIN_WEIGHT)

    def run(name, **changes):
        info = finetune(settings_for(photos, tmp_path / name, trained.cache, **changes))
        return info, load_run(tmp_path / name).weights()["classifier.weight"]

    held_out, without = run("held-out", validation_fraction=0.4)
    refitted, weight = run("refitted", validation_fraction=0.4, refit=True)
    _, of_all = run("all")
    assert refitted["validation"] == held_out["validation"], "measured before the images were trained on"
    assert (refitted["refitted"], held_out["refitted"]) == (True, False)
    torch.testing.assert_close(weight, of_all)
    assert not torch.allclose(weight, without, atol=1e-3)
    assert set(load_run(tmp_path / "refitted").splits().values()) == {"train"}


@pytest.mark.slow
def test_fit_and_size_are_stored(photos, trained, tmp_path):
    run = tmp_path / "run"
    info = finetune(settings_for(photos, run, trained.cache, network={"fit": "squash"}))
    assert info["images"]["computed"] == 45, "another preprocessing has another cache"
    assert load_run(run).preprocessing.fit == "squash"
    assert load_run(run).preprocessing.width == 64


def test_resume_of_a_finished_run_changes_nothing_and_refuses_other_settings(photos, trained, tmp_path):
    run = tmp_path / "run"
    first = finetune(settings_for(photos, run, trained.cache))
    again = finetune(settings_for(photos, run, trained.cache, resume=True))
    assert again["created"] == first["created"]
    with pytest.raises(ArtifactError, match="balance was False and is True"):
        finetune(settings_for(photos, run, trained.cache, resume=True, balance=True))
    with pytest.raises(UsageError, match="exists"):
        finetune(settings_for(photos, run, trained.cache))


@pytest.mark.slow
def test_overwrite_keeps_the_old_run_until_the_new_one_is_complete(photos, trained, tmp_path, monkeypatch):
    run = tmp_path / "run"
    finetune(settings_for(photos, run, trained.cache))
    before = {path.name: path.read_bytes() for path in run.iterdir()}

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tlcli.commands.finetune.run_report", fail)
    with pytest.raises(OSError, match="No space"):
        finetune(settings_for(photos, run, trained.cache, overwrite=True, balance=True))
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    monkeypatch.undo()
    finetune(settings_for(photos, run, trained.cache, overwrite=True, balance=True))
    assert load_run(run).info["settings"]["balance"]


def test_grayscale_backbone(photos, trained, tmp_path):
    """LeNet-5 with random weights takes 32 x 32 gray images."""
    settings = FinetuneSettings(
        data=photos,
        out=tmp_path / "run",
        network=NetworkSettings(backbone="lenet5", weights="none"),
        cache=CacheSettings(directory=trained.cache),
    )
    info = finetune(settings)
    assert info["preprocessing"]["channels"] == 1
    assert info["feature_shape"] == [84]
    assert load_run(tmp_path / "run").weights()
