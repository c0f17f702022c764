"""An export that differs from the run, or cannot be made, is not written."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from exported_runs import with_changed_weight

from tlcli.cli.main import run as tlcli
from tlcli.commands import export as command
from tlcli.exporting import onnx_file


@pytest.mark.parametrize("form", ["onnx", "torch", "timm"])
def test_an_export_that_differs_is_not_written(form, trained, gray, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    owner, name = (timm, "create_model") if form == "timm" else (command, "load_network")
    monkeypatch.setattr(owner, name, with_changed_weight(getattr(owner, name)))
    run = trained.run if form == "timm" else gray
    assert tlcli(["export", str(run), "--format", form, "--json", "--workers", "1"]) == 4
    error = json.loads(capfd.readouterr().out)["error"]
    assert error["kind"] == "artifact"
    assert "at most 0.0001 is accepted. Nothing was written." in error["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_refused_export_keeps_the_existing_file(gray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.onnx").write_text("before")
    assert tlcli(["export", str(gray), "--format", "onnx"]) == 2
    monkeypatch.setattr(command, "load_network", with_changed_weight(command.load_network))
    assert tlcli(["export", str(gray), "--format", "onnx", "--overwrite"]) == 4
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("run.onnx", "before")]


def test_an_export_failure_is_reported_in_one_line(gray, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("data-dependent\nand more lines")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.export, "export", fail)
    assert tlcli(["export", str(gray), "--format", "onnx"]) == 4
    message = capsys.readouterr().err
    assert "any number of images (RuntimeError: data-dependent). Nothing was written." in message
    assert "Traceback" not in message
    assert list(tmp_path.iterdir()) == []


def test_weights_too_large_for_onnx_are_refused(gray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnx_file, "MAX_WEIGHT_BYTES", 1000)
    assert tlcli(["export", str(gray), "--format", "onnx"]) == 2
    assert "an ONNX file holds at most 2" in capsys.readouterr().err


def test_missing_training_images_require_data(photos, gray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = gray.parent / "photos"
    data.rename(tmp_path / "elsewhere")
    try:
        assert tlcli(["export", str(gray), "--format", "onnx"]) == 2
        assert "no longer at" in capsys.readouterr().err
        moved = ["export", str(gray), "--format", "onnx", "--data", "elsewhere", "--pictures", "5", "--json"]
        assert tlcli(moved) == 0
        assert json.loads(capsys.readouterr().out)["images"] == 5
    finally:
        (tmp_path / "elsewhere").rename(data)


def test_nan_probabilities_are_refused(gray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    nothing = np.full((1, 3), np.nan, np.float32)
    monkeypatch.setattr(onnx_file, "load_onnx", lambda *_: lambda pixels: (np.repeat(nothing, len(pixels), 0),) * 2)
    assert tlcli(["export", str(gray), "--format", "onnx", "--int8", "--json"]) == 4
    assert "differ from the run by up to nan" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["onnx", "timm"])
def test_an_invalid_output_is_refused_first(form, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = f"street.{form}"
    assert tlcli(["export", str(trained.run), "--format", form, "--out", f"nowhere/{name}"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")
    assert tlcli(["export", str(trained.run), "--format", form, "--out", name, "--overwrite"]) == 2
    assert [path.name for path in tmp_path.rglob("*")] == [name, "mine.txt"]
