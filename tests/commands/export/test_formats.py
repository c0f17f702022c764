"""export: each format agrees with the run, without tlcli too."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from exported_runs import HOSTILE, IMAGE, ROOT, WITHOUT, about_onnx, expected, normalized, train
from PIL import Image

from tlcli.cli.main import run as tlcli
from tlcli.commands import export as command
from tlcli.commands.predict import predict
from tlcli.exporting import timm_folder
from tlcli.images.preprocess import Preprocessing, fit_image
from tlcli.runs.run import load_run
from tlcli.settings import PredictSettings

PAGE = ROOT / "docs/export.md"


def lines_of(form):
    """Return the example of docs/export.md for one format."""
    return re.search(rf"<!-- export: {form} -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)


@pytest.mark.parametrize(
    "form", ["onnx", *(pytest.param(form, marks=pytest.mark.slow) for form in ("openvino", "torch", "timm"))]
)
def test_reports_the_difference_from_the_run(form, export_as):
    found = export_as(form).result
    assert {"out", "format", "max_difference", "agreement"} <= found.keys()
    assert found["format"] == form
    assert found["images"] == 20
    assert 0 <= found["max_difference"] <= found["tolerance"]["max_difference"] == 1e-4
    assert found["agreement"] == 1
    assert Path(found["out"]).exists()
    assert found["bytes"] > 13_000_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "refused", "tolerance"),
    [
        ("onnx", {"tlcli", "torch", "timm"}, 1e-4),
        ("openvino", {"tlcli", "torch", "timm", "onnx"}, 1e-4),
        ("torch", {"tlcli", "timm"}, 1e-4),
        ("timm", {"tlcli"}, 0.1),  # which resizes all of the image, and by whole pixels
    ],
)
def test_the_examples_run_without_tlcli(form, refused, tolerance, export_as, trained):
    place = export_as(form).folder
    lines = lines_of(form)
    assert len([line for line in lines.splitlines() if line]) <= 12
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT.format(refused=refused) + lines],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    label, confidence = done.stdout.split()
    (row,) = predict(PredictSettings(run=trained.run, inputs=(str(place / IMAGE),))).rows
    assert label == row["label"]
    assert float(confidence) == pytest.approx(row["confidence"], abs=tolerance)


def test_onnx_accepts_any_batch_size(export_as, trained, photos):
    session = onnxruntime.InferenceSession(export_as("onnx").result["out"])
    about = about_onnx(session)
    assert about["classes"] == trained.info["classes"]
    assert about["preprocessing"] == load_run(trained.run).info["preprocessing"]
    assert about["format_version"] == 1
    pixels, shares = expected(trained.run, photos)
    for count in (1, 2, 7):
        logits, found = session.run(None, {"images": normalized(pixels[:count], about)})
        assert logits.shape == (count, 3)
        np.testing.assert_allclose(found, shares[:count], atol=1e-4)
    assert session.get_inputs()[0].shape == ["batch", 3, 64, 64]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "openvino", "torch", "timm"])
def test_exports_contain_no_local_paths(form, export_as):
    out = Path(export_as(form).result["out"])
    for file in (path for path in (out, *out.rglob("*")) if path.is_file()):
        content = file.read_bytes()
        for source in (timm.__file__, torch.__file__, command.__file__):
            assert str(Path(source).parent).encode() not in content, file


@pytest.mark.slow
def test_gray_images_unusual_names_and_a_prior(gray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert tlcli(["export", str(gray), "--format", "onnx", "--with-preprocessing", "--json", "--workers", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["out"] == "run.onnx"
    session = onnxruntime.InferenceSession(tmp_path / "run.onnx")
    about = about_onnx(session)
    assert sorted(about["classes"]) == sorted(HOSTILE.values())
    assert about["log_prior"] == load_run(gray).info["log_prior"] is not None
    pixels, shares = expected(gray, gray.parent / "photos")
    assert pixels.shape[3] == 1
    for count in (1, 2, 7):
        np.testing.assert_allclose(session.run(None, {"pixels": pixels[:count]})[1], shares[:count], atol=1e-4)

    assert tlcli(["export", str(gray), "--format", "torch", "--workers", "1"]) == 0
    network = torch.export.load(tmp_path / "run.pt2", extra_files=(files := {"tlcli.json": ""})).module()
    assert json.loads(files["tlcli.json"])["classes"] == about["classes"]
    for count in (1, 2, 7):
        found = network(torch.from_numpy(normalized(pixels[:count], about)))[1]
        np.testing.assert_allclose(found.detach(), shares[:count], atol=1e-4)

    assert tlcli(["export", str(gray), "--format", "timm"]) == 2
    assert "timm does not provide" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trained_tail_with_a_prior(photos, tmp_path):
    from tlcli.settings import ExportSettings

    run = train(photos, tmp_path, balance=True, epochs=2, backbone="lenet5", weights="none", freeze="2")
    for form, name in (("onnx", "x.onnx"), ("torch", "x.pt2")):
        settings = ExportSettings(run=run, form=form, out=tmp_path / name, workers=1, pictures=20)
        found = command.export(settings)
        assert found.limits.difference == 1e-3
        assert found.comparison.max_difference <= 1e-3
        assert found.comparison.agreement == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "run", "x.onnx", "x.pt2"]


@pytest.mark.slow
def test_an_exported_transformer_accepts_any_batch_size(photos, tmp_path):
    from tlcli.settings import ExportSettings

    run = train(photos, tmp_path, backbone="test_vit", weights="none", size=32)
    settings = ExportSettings(run=run, form="onnx", out=tmp_path / "x.onnx", with_preprocessing=True, workers=1)
    assert command.export(settings).comparison.agreement == 1
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    pixels, shares = expected(run, photos)
    for count in (1, 2, 7):
        np.testing.assert_allclose(session.run(None, {"pixels": pixels[:count]})[1], shares[:count], atol=1e-4)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_timm_transforms_agree_with_ours(fit, trained, tmp_path):
    run = load_run(trained.run)
    run = replace(run, info=run.info | {"preprocessing": run.info["preprocessing"] | {"fit": fit}})
    config = timm_folder.timm_folder_config(run, {})["pretrained_cfg"]
    transform = timm.data.create_transform(**timm.data.resolve_data_config(config))
    image = Image.open(ROOT / IMAGE).convert("RGB").resize((400, 300))
    how: Preprocessing = run.preprocessing
    mine = normalized(np.array(fit_image(image, how))[None], {"preprocessing": how.to_json()})[0]
    # In units of which images span two; timm crops whole pixels of the resized image, tlcli also half pixels.
    assert np.abs(transform(image).numpy() - mine).mean() < (0.1 if fit == "crop" else 0.03)
