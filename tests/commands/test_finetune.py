"""Test finetune, from a folder of drawn images to a run that other programs can load."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image

from tlcli.commands.finetune import finetune
from tlcli.errors import ArtifactError, DataError, UsageError
from tlcli.runs.run import load_run
from tlcli.settings import CacheSettings, FinetuneSettings, NetworkSettings
from tlcli.training.head import sweep
from tlcli.training.head.softmax_regression import WITHIN_WEIGHT


def settings_for(data, out, cache, **changes):
    network = NetworkSettings(size=64, **changes.pop("network", {}))
    return FinetuneSettings(data=data, out=out, network=network, cache=CacheSettings(directory=cache), **changes)


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
