"""Results on a CUDA GPU agree with those on a CPU; skipped without a GPU.

`TLCLI_TEST_DEVICE=cpu` runs these tests on a CPU, to check the tests themselves.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.commands.cache_features import cache_features
from tlcli.commands.finetune import finetune
from tlcli.commands.inspect import inspect
from tlcli.commands.predict import predict
from tlcli.engines.choice import pick_device, pick_precision
from tlcli.engines.opening import open_runner
from tlcli.features.backbone import make_preprocessing
from tlcli.settings import (
    CacheFeaturesSettings,
    CacheSettings,
    ComputeSettings,
    FinetuneSettings,
    InspectSettings,
    NetworkSettings,
    PredictSettings,
    TrainingSettings,
)
from tlcli.settings.augmentation import PRESETS
from tlcli.training.head.softmax_regression import fit_paths
from tlcli.training.tail import compilation

DEVICE = os.environ.get("TLCLI_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA GPU")
only_cuda = pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA GPU")
DEVICE_COMPUTE, CPU_COMPUTE = ComputeSettings(device=DEVICE, workers=1), ComputeSettings(device="cpu", workers=1)


def train(photos, folder, freeze, report=None, *, name="run", **settings):
    """Train a run on the device."""
    defaults = FinetuneSettings(
        data=photos,
        out=folder / name,
        network=NetworkSettings(size=64, freeze=freeze),
        compute=DEVICE_COMPUTE,
        cache=CacheSettings(directory=folder / "cache"),
    )
    return finetune(replace(defaults, **settings), report)


def rows_of(run, photos, compute):
    """Return the predicted labels and confidences of all images."""
    rows = list(predict(PredictSettings(run=run, inputs=(str(photos),), compute=compute)).rows)
    return [row["label"] for row in rows], np.array([row["confidence"] for row in rows])


def test_features_in_the_default_precision_agree(report):
    backbone = load_backbone(classes=3)
    preprocessing = make_preprocessing(backbone, "crop")
    pixels = np.random.default_rng(0).integers(0, 256, (9, *preprocessing.shape), np.uint8)
    for freeze in ("all", "blocks.3.0", "conv_stem"):
        features = []
        for device in (torch.device("cpu"), pick_device(DEVICE)):
            runner = open_runner(
                lambda freeze=freeze: cut_at(backbone, freeze).prefix,
                preprocessing,
                exported=None,
                requested="torch",
                device=device,
                precision=pick_precision("auto", device),
                report=report,
            )
            features += map(torch.from_numpy, runner.map([pixels]))
            torch.testing.assert_close(runner.features(pixels[:2]).cpu(), features[-1][:2], atol=0.05, rtol=0.05)
        ours, theirs = (found.flatten(1) for found in features)
        assert functional.cosine_similarity(ours, theirs).min() >= 0.9999
    assert not report.warnings


def test_both_devices_share_one_cache(photos, tmp_path, report):
    cache, network = CacheSettings(directory=tmp_path), NetworkSettings(size=64)
    settings = CacheFeaturesSettings(data=photos, network=network, compute=DEVICE_COMPUTE, cache=cache)
    assert cache_features(settings, report)["computed"] == 45
    again = cache_features(replace(settings, compute=CPU_COMPUTE), report)
    assert (again["computed"], again["reused"]) == (0, 45)


@pytest.mark.parametrize("freeze", ["all", "blocks.4", "none"])
def test_a_run_trained_on_the_device_predicts_the_same_on_a_cpu(photos, tmp_path, report, freeze):
    train(photos, tmp_path, freeze, report, training=TrainingSettings(epochs=None if freeze == "all" else 1))
    labels, confidences = rows_of(tmp_path / "run", photos, DEVICE_COMPUTE)
    cpu_labels, cpu_confidences = rows_of(tmp_path / "run", photos, CPU_COMPUTE)
    assert labels == cpu_labels
    np.testing.assert_allclose(confidences, cpu_confidences, atol=0.02)
    assert not [warning for warning in report.warnings if "fp16" in warning or "memory" in warning]


def test_views_are_streamed_and_a_finished_run_resumes(photos, tmp_path, report):
    settings = {"training": TrainingSettings(epochs=2), "augmentation": PRESETS["light"]}
    assert train(photos, tmp_path, "blocks.5", report, **settings)["validation"]["accuracy"] > 0.5
    assert train(photos, tmp_path, "blocks.5", report, **settings, resume=True)["was_finished"]


def test_the_head_converges_to_the_same_minimum():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    features = torch.randn(400, 60, generator=generator) + torch.randn(4, 60, generator=generator)[labels]
    heads = []
    for device in ("cpu", DEVICE):
        (fitted,) = fit_paths(features, labels, [torch.ones(400)], classes=4, l2s=[0.01], device=device)
        heads.append(fitted[0])
    logits = [features @ head.weight.T + head.bias for head in heads]
    losses = [functional.cross_entropy(values, labels).item() for values in logits]
    assert losses[-1] == pytest.approx(losses[0], rel=1e-3)
    assert torch.equal(logits[0].argmax(1), logits[-1].argmax(1))


@only_cuda
def test_a_compiled_tail_trains(photos, tmp_path, report, monkeypatch):
    monkeypatch.setattr(compilation, "COMPILE_FROM", 0)
    train(photos, tmp_path, "blocks.5", report, training=TrainingSettings(epochs=2))
    assert not [warning for warning in report.warnings if "compile" in warning]


@only_cuda
def test_running_out_of_memory_halves_the_batch(photos, tmp_path, report):
    _, total = torch.cuda.mem_get_info()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2e8 / total)
    try:
        compute = replace(DEVICE_COMPUTE, batch_size=4096)
        network = NetworkSettings(size=448)
        settings = CacheFeaturesSettings(
            data=photos, network=network, compute=compute, cache=CacheSettings(directory=tmp_path)
        )
        assert cache_features(settings, report)["computed"] == 45
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert [warning for warning in report.warnings if "ran out of memory; continuing with" in warning]


def test_units_are_inspected_on_the_device(photos, tmp_path, report):
    settings = InspectSettings(
        network="tf_efficientnet_lite0", data=photos, out=tmp_path / "units", units=2, compute=DEVICE_COMPUTE
    )
    inspect(settings, report)
    assert (tmp_path / "units" / "units.jsonl").read_text()
