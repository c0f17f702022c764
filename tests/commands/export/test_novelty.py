"""Novelty in ONNX is that of predict."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
from exported_runs import train

from tlcli.cli.main import run as tlcli
from tlcli.datasets.dataset import open_dataset
from tlcli.exporting import comparison
from tlcli.exporting.comparison_images import load_comparison_images
from tlcli.inference.predictor import Predictor
from tlcli.runs.run import load_run


@pytest.mark.parametrize("kind", ["head", pytest.param("tail", marks=pytest.mark.slow)])
def test_novelty_in_onnx_is_that_of_predict(kind, gray, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = gray if kind == "tail" else train(photos, tmp_path, backbone="lenet5", weights="none")
    arguments = ["export", str(run), "--format", "onnx", "--with-preprocessing", "--with-novelty", "--json"]
    assert tlcli([*arguments, "--out", "x.onnx"]) == 0
    ranks = load_run(run).info["novelty"]["known"] + 1
    assert json.loads(capsys.readouterr().out)["novelty_difference"] <= 1 / ranks + 1e-3
    session = onnxruntime.InferenceSession("x.onnx")
    assert [output.name for output in session.get_outputs()] == ["logits", "probabilities", "novelty"]
    data = photos if kind == "head" else gray.parent / "photos"
    images = load_comparison_images(
        load_run(run), open_dataset(data, classes=load_run(run).classes), compare=7, calibrate=0, workers=1
    )
    noise = np.random.default_rng(0).integers(0, 256, images.pixels.shape, np.uint8)
    predictor = Predictor(load_run(run), device="cpu", workers=1)
    for pixels in (images.pixels, noise):
        outputs = predictor.model.run(pixels)
        expected = predictor.novelty(outputs.features, outputs.logits)
        for count in (1, len(pixels)):
            found = session.run(["novelty"], {"pixels": pixels[:count]})[0]
            assert found.shape == (count,)
            np.testing.assert_allclose(found, expected[:count], atol=1 / ranks + 1e-3)


@pytest.mark.parametrize(
    "arguments", [["--format", "torch", "--with-novelty"], ["--format", "onnx", "--int8", "--with-novelty"]]
)
def test_novelty_needs_onnx_in_full_precision(trained, arguments):
    assert tlcli(["export", str(trained.run), *arguments]) == 2


def test_novelty_that_differs_is_refused(gray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison, "_novelty_limit", lambda _: -1.0)
    assert tlcli(["export", str(gray), "--format", "onnx", "--with-novelty"]) == 4
    assert "the novelty differs from the run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
