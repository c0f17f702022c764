"""An export with 8-bit weights is smaller, and reports its accuracy."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
from exported_runs import HOSTILE, about_onnx, expected, normalized

from tlcli.cli.main import run as tlcli
from tlcli.exporting import comparison
from tlcli.runs.run import load_run


@pytest.mark.slow
def test_int8_is_smaller_and_reports_its_accuracy(gray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["export", str(gray), "--format", "onnx", "--json", "--workers", "1"]
    monkeypatch.setattr(comparison, "INT8_AGREEMENT", 1.01)
    assert tlcli([*arguments, "--int8"]) == 4
    assert "needs more than 8 bits" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert tlcli([*arguments, "--int8"]) == 0
    found = json.loads(capsys.readouterr().out)
    run = load_run(gray)
    trained_on = list(run.splits().values()).count("train")
    assert found["int8"]["calibrated_on"] == trained_on
    assert found["held_out"] == found["images"] - trained_on
    assert found["tolerance"] == {"max_difference": None, "agreement": 0.9}
    assert found["agreement"] >= 0.9
    assert abs(found["int8"]["accuracy_after"] - found["int8"]["accuracy_before"]) <= 1 - found["agreement"]
    assert tlcli(arguments) == 0
    assert found["bytes"] < json.loads(capsys.readouterr().out)["bytes"] / 2
    session = onnxruntime.InferenceSession(tmp_path / "run-int8.onnx")
    pixels, shares = expected(gray, gray.parent / "photos")
    for count in (1, 2, 7):
        after = session.run(None, {"images": normalized(pixels[:count], about_onnx(session))})[1]
        np.testing.assert_allclose(after, shares[:count], atol=0.1)


def test_int8_requires_training_images(gray, draw, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in HOSTILE.values():
        draw(tmp_path / "other" / name / "new.png", len(name))
    assert tlcli(["export", str(gray), "--format", "onnx", "--int8", "--data", "other"]) == 4
    assert "other contains none" in capsys.readouterr().err
