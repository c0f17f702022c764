"""Novelty from finetune to predict and evaluate: the same numbers on every path, and runs without it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from PIL import Image

from tlcli.commands.evaluate import evaluate
from tlcli.commands.finetune import finetune
from tlcli.commands.predict import predict
from tlcli.errors import ArtifactError, UsageError
from tlcli.runs.directory import NOVELTY_FILE, ONNX_FILE, RUN_FILE
from tlcli.runs.run import load_run
from tlcli.settings import (
    CacheSettings,
    ComputeSettings,
    EvaluateSettings,
    FinetuneSettings,
    NetworkSettings,
    PredictSettings,
    TrainingSettings,
)
from tlcli.storage.files import sealed, sha256_file, write_json


def tune(photos, out, *, cache=None, freeze="1", **changes):
    """Train the later layers of LeNet-5 for an epoch."""
    settings = FinetuneSettings(
        data=photos,
        out=out,
        network=NetworkSettings(backbone="lenet5", weights="none", freeze=freeze),
        training=TrainingSettings(epochs=2),
        compute=ComputeSettings(workers=1, batch_size=8),
        cache=CacheSettings(directory=cache) if cache else CacheSettings(enabled=False),
        **changes,
    )
    return finetune(settings)


@pytest.fixture(scope="module")
def tuned(photos, tmp_path_factory):
    """A run with a trained tail, refitted on its held-out images."""
    run = tmp_path_factory.mktemp("tuned") / "run"
    tune(photos, run, validation_fraction=0.4, refit=True)
    return run


@pytest.fixture(params=["frozen", "tuned"])
def run(request, trained, tuned):
    return trained.run if request.param == "frozen" else tuned


@pytest.fixture
def old_run(trained, tmp_path):
    """A run as version 0.2 wrote it: its ONNX file has no features."""
    folder = tmp_path / "old"
    shutil.copytree(trained.run, folder)
    (folder / NOVELTY_FILE).unlink()
    model = onnx.load(folder / ONNX_FILE)
    del model.graph.output[1:]
    onnx.save(model, folder / ONNX_FILE)
    info = json.loads((folder / RUN_FILE).read_text())
    del info["files"][NOVELTY_FILE], info["novelty"], info["sha256"]
    info["files"][ONNX_FILE] = sha256_file(folder / ONNX_FILE)
    write_json(folder / RUN_FILE, sealed(info))
    return folder


def rows_of(run, *inputs, **changes):
    return predict(PredictSettings(run=run, inputs=tuple(map(str, inputs)), **changes)).rows


def novelties(rows):
    return np.array([row["novelty"] for row in rows], np.float64)


def test_training_images_are_typical_and_noise_is_not(trained, photos, tmp_path):
    run = trained.run
    for seed in range(3):
        noise = np.random.default_rng(seed).integers(0, 256, (80, 96, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"noise{seed}.png")
    known, noisy = rows_of(run, photos), rows_of(run, tmp_path)
    assert np.median(novelties(known)) < 0.6
    assert novelties(noisy).min() > np.quantile(novelties(known), 0.9)
    assert all(row["label"] for row in noisy), "the label stays"


def test_the_status_follows_the_rate(run, photos):
    for rate in (0, 0.2, None):
        for row in rows_of(run, photos, unknown_rate=rate):
            assert (row["status"] == "unknown") == (row["novelty"] > 1 - (0.01 if rate is None else rate))


def test_torch_and_onnx_runtime_agree(run, photos):
    found = [novelties(rows_of(run, photos, compute=ComputeSettings(engine=name))) for name in ("onnx", "torch")]
    np.testing.assert_allclose(*found, atol=0.03)  # an image may change its rank among the known ones


def test_batches_and_workers_do_not_matter(run, photos):
    whole = rows_of(run, photos)
    assert rows_of(run, photos, compute=ComputeSettings(batch_size=5, workers=2)) == whole
    assert rows_of(run, whole[3]["path"]) == [whole[3]]


def test_evaluate_counts_what_predict_flags(run, photos):
    found = evaluate(EvaluateSettings(run=run, data=photos, split="all", compute=ComputeSettings(workers=1)))
    statuses = [row["status"] for row in rows_of(run, photos)]
    assert found["unknown"] == {"images": statuses.count("unknown"), "rate": 0.01}


@pytest.mark.slow
def test_cached_equals_uncached(photos, tmp_path):
    for name, cache in (("with", tmp_path / "cache"), ("without", None)):
        tune(photos, tmp_path / name, cache=cache)
    contents = [(tmp_path / name / NOVELTY_FILE).read_bytes() for name in ("with", "without")]
    assert contents[0] == contents[1]


def test_the_run_names_its_sizes(run):
    info = load_run(run).info
    assert info["novelty"]["bank"] == 45
    assert info["novelty"]["known"] == (45 if info["training"] is None else info["images"]["validation"])


def test_a_run_without_it_predicts_as_before(old_run, trained, photos, report):
    settings = PredictSettings(run=old_run, inputs=(str(photos),))
    before = predict(settings, report).rows
    assert len(report.notes) == 1
    assert "the run has no novelty.safetensors, which tlcli 0.2 and older did not write" in report.notes[0]
    assert "novelty" not in before[0]
    names = ("path", "label", "confidence")
    assert [[row[name] for name in names] for row in before] == [
        [row[name] for name in names] for row in rows_of(trained.run, photos)
    ]
    assert evaluate(EvaluateSettings(run=old_run, data=photos, split="all"))["unknown"] is None
    with pytest.raises(UsageError, match="--unknown-rate has no effect"):
        rows_of(old_run, photos, unknown_rate=0.05)


def test_resume_of_a_finished_file_checks_the_rate(run, photos, tmp_path):
    for name in ("rows.csv", "rows.parquet"):
        settings = {"run": run, "inputs": (str(photos),), "out": str(tmp_path / name)}
        first = predict(PredictSettings(**settings, unknown_rate=0.5))
        again = predict(PredictSettings(**settings, unknown_rate=0.5, resume=True))
        assert again.was_finished
        assert (again.unknown, again.labels) == (first.unknown, first.labels)
        assert first.unknown
        with pytest.raises(ArtifactError, match="has status"):
            predict(PredictSettings(**settings, unknown_rate=0, resume=True))
