"""export: an export agrees with the run without tlcli, or is not written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from PIL import Image

from tlcli.cli.main import run as tlcli
from tlcli.commands import export as command
from tlcli.commands.finetune import finetune
from tlcli.commands.predict import predict
from tlcli.datasets.dataset import open_dataset
from tlcli.exporting import comparison, onnx_file, timm_folder
from tlcli.exporting.comparison_images import load_comparison_images
from tlcli.exporting.model_card import model_card
from tlcli.images.preprocess import Preprocessing, fit_image
from tlcli.inference.predictor import Predictor
from tlcli.runs.run import load_run
from tlcli.settings import (
    CacheSettings,
    ComputeSettings,
    FinetuneSettings,
    NetworkSettings,
    PredictSettings,
    TrainingSettings,
)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/export.md"
IMAGE = "sample_data/to_predict/street_1.jpg"
HOSTILE = {"disc": 'a"b|c`d`', "square": "<script>\\u0041 *x*", "stripes": "=näh #[x](y)"}

WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
"""
"""Code that blocks the import of some packages."""


def train(photos, folder, *, balance=False, epochs=None, **network):
    """Train a run at `folder/run`."""
    finetune(
        FinetuneSettings(
            data=photos,
            out=folder / "run",
            network=NetworkSettings(**network),
            training=TrainingSettings(epochs=epochs),
            compute=ComputeSettings(workers=1),
            cache=CacheSettings(directory=folder / "cache"),
            balance=balance,
        )
    )
    return folder / "run"


class Exported(NamedTuple):
    """An export of the trained run. Not to be changed."""

    folder: Path
    """With the export, and the image of docs/export.md."""
    result: dict


@pytest.fixture(scope="session")
def export_as(shared_folder, trained):
    """Export the trained run as `export_as("onnx")`; that for torch has the preprocessing, as in docs/export.md."""
    from tlcli.settings import ExportSettings

    names = {"onnx": "street.onnx", "torch": "street.pt2", "timm": "street-timm"}

    def export(form):
        def write(folder):
            (folder / IMAGE).parent.mkdir(parents=True)
            shutil.copy(ROOT / IMAGE, folder / IMAGE)
            out, whole = folder / names[form], form == "torch"
            settings = ExportSettings(
                run=trained.run, form=form, out=out, with_preprocessing=whole, workers=1, pictures=20
            )
            (folder / "result.json").write_text(json.dumps(command.export(settings).to_json()))

        folder = shared_folder(f"export-{form}", write)
        return Exported(folder, json.loads((folder / "result.json").read_text()))

    return export


@pytest.fixture(scope="module")
def gray(photos, tmp_path_factory):
    """A run of lenet5, which takes gray images, with unusual class names and balanced classes."""
    folder = tmp_path_factory.mktemp("gray")
    for shape, name in HOSTILE.items():
        for image in sorted((photos / shape).iterdir())[: 15 if shape == "disc" else 11]:
            (folder / "photos" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(image, folder / "photos" / name)
    return train(folder / "photos", folder, balance=True, epochs=2, backbone="lenet5", weights="none", freeze="none")


def expected(run, data, count=7):
    """Return the pixels of some images, and the probabilities that the run predicts."""
    run = load_run(run)
    images = load_comparison_images(run, open_dataset(data, classes=run.classes), compare=count, calibrate=0, workers=1)
    predictor = Predictor(run, device="cpu", workers=1)
    return images.pixels, predictor.probabilities(predictor.model.run(images.pixels).logits)


def normalized(pixels, about):
    how = about["preprocessing"]
    return ((pixels / 255 - how["mean"]) / how["std"]).transpose(0, 3, 1, 2).astype(np.float32)


def about_onnx(session):
    return {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}


def lines_of(form):
    """Return the example of docs/export.md for one format."""
    return re.search(rf"<!-- export: {form} -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)


@pytest.mark.parametrize("form", ["onnx", *(pytest.param(form, marks=pytest.mark.slow) for form in ("torch", "timm"))])
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
        ("torch", {"tlcli", "timm"}, 1e-4),
        ("timm", {"tlcli"}, 0.1),  # which resizes all of the image, and by whole pixels
    ],
)
def test_the_examples_run_without_tlcli(form, refused, tolerance, export_as, trained):
    place = export_as(form).folder
    lines = lines_of(form)
    assert len([line for line in lines.splitlines() if line]) == 10
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


@pytest.mark.slow
def test_the_model_card_has_working_code_and_metrics(export_as, trained):
    place = export_as("timm").folder
    card = (place / "street-timm" / "README.md").read_text()
    assert f"Accuracy {100 * trained.info['validation']['accuracy']:.1f} %" in card
    assert "| Images, train | 45 |" in card
    assert all(f"| {name} | 15 |" in card for name in trained.info["classes"])
    lines = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1).replace("image.jpg", IMAGE)
    code = WITHOUT.format(refused={"tlcli"}) + lines
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in trained.info["classes"]


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
@pytest.mark.parametrize("form", ["onnx", "torch", "timm"])
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


def test_the_model_card_escapes_names(gray):
    run = load_run(gray)
    card = model_card(run, 'x"#y')
    assert "<script>" not in card
    assert r"a\"b" not in card.split("## Use")[0].split("---")[2]
    rows = [line for line in card.splitlines() if line.startswith("| ") and line.endswith(" % |")]
    assert len(rows) == 3
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
    assert f"torch.tensor({run.info['log_prior']!r})" in card


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


def with_changed_weight(function):
    """Wrap a function that returns a network, and change one weight of its head."""

    def changed(*arguments, **options):
        found = function(*arguments, **options)
        network = getattr(found, "model", found)
        with torch.no_grad():
            list(network.parameters())[-1][0] += 0.05
        return found

    return changed


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


def test_int8_requires_training_images(gray, draw, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in HOSTILE.values():
        draw(tmp_path / "other" / name / "new.png", len(name))
    assert tlcli(["export", str(gray), "--format", "onnx", "--int8", "--data", "other"]) == 4
    assert "other contains none" in capsys.readouterr().err


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
