"""A run predicts the same with and without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tlcli.commands.finetune import finetune
from tlcli.commands.predict import predict
from tlcli.engines import onnx_export
from tlcli.errors import ArtifactError, UsageError
from tlcli.inference import model
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
from tlcli.settings.augmentation import Augmentation

LENET = {"backbone": "lenet5", "weights": "none"}


def train(photos, folder, *, network=None, compute=None, balance=False, overwrite=False):
    """Train a run: two epochs, or just the head if all layers are frozen."""
    network = NetworkSettings(**(network or {"size": 64}))
    settings = FinetuneSettings(
        data=photos,
        out=folder / "run",
        network=network,
        training=TrainingSettings(epochs=None if network.freeze == "all" else 2),
        augmentation=Augmentation() if network.freeze == "none" else None,
        compute=ComputeSettings(workers=1, **(compute or {})),
        cache=CacheSettings(directory=folder / "cache"),
        balance=balance,
        overwrite=overwrite,
    )
    finetune(settings)
    return folder / "run"


def predicted(run, photos, **compute):
    """Return the probabilities and predicted classes of all images."""
    settings = PredictSettings(
        run=run, inputs=(str(photos),), probabilities=True, compute=ComputeSettings(workers=1, **compute)
    )
    rows = predict(settings).rows
    classes = load_run(run).classes
    return np.array([[row[f"p:{name}"] for name in classes] for row in rows]), [row["label"] for row in rows]


@pytest.mark.parametrize(
    ("network", "balance"),
    [
        (None, False),
        pytest.param({"size": 64, "freeze": "blocks.3"}, False, marks=pytest.mark.slow),
        pytest.param(
            {"backbone": "test_efficientnet", "weights": "none", "size": 64, "freeze": "blocks.2"},
            True,
            marks=pytest.mark.slow,
        ),
        (LENET | {"freeze": "none"}, False),
        pytest.param(
            {"backbone": "test_vit", "weights": "none", "size": 32, "freeze": "3"},
            False,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_predictions_agree_with_and_without_torch(photos, trained, tmp_path, network, balance):
    run = train(photos, tmp_path, network=network, balance=balance) if network else trained.run
    assert "model.onnx" in load_run(run).info["files"]
    (onnx, labels), (torch, same) = predicted(run, photos), predicted(run, photos, engine="torch")
    np.testing.assert_allclose(onnx, torch, atol=1e-3)  # where a map is rounded to fp16, the last bit may differ
    assert labels == same
    assert len(labels) == 45


@pytest.mark.parametrize("engine", ["auto", "openvino"])
def test_predict_does_not_import_torch(trained, photos, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    program = "import sys; from tlcli.cli.main import run; code = run(sys.argv[1:]); "
    program += "print([name for name in ('torch', 'timm', 'torchvision') if name in sys.modules]); sys.exit(code)"
    options = ["--device", "cpu", "--engine", engine, "--json"]
    command = [sys.executable, "-c", program, "predict", trained.run, photos / "disc", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    content, modules = done.stdout.rsplit("\n", 2)[:2]
    assert json.loads(content)["images"] == 15
    assert modules == "[]"


@pytest.mark.parametrize("compute", [{"engine": "torch"}, {"precision": "bf16"}])
def test_runs_trained_with_torch_or_bf16_have_no_onnx_file(photos, tmp_path, compute):
    run = train(photos, tmp_path, network=LENET, compute=compute)
    assert not (run / "model.onnx").exists()
    assert len(predicted(run, photos)[1]) == 45
    with pytest.raises(UsageError, match=r"--engine onnx: .*run has no model\.onnx"):
        predicted(run, photos, engine="onnx")


def test_a_network_that_cannot_be_exported_predicts_in_torch(photos, tmp_path, monkeypatch):
    def no_export(*_):
        raise onnx_export.ExportError("torch cannot export it")

    monkeypatch.setattr(onnx_export, "_export", no_export)
    run = train(photos, tmp_path, network=LENET)
    assert not (run / "model.onnx").exists()
    assert load_run(run).info["engine"] == "torch"
    assert len(predicted(run, photos)[1]) == 45


def test_a_damaged_onnx_file_is_refused(photos, tmp_path):
    run = train(photos, tmp_path, network=LENET)
    content = bytearray((run / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "model.onnx").write_bytes(content)
    for engine in ("auto", "torch"):
        with pytest.raises(ArtifactError, match=r"model\.onnx was changed"):
            predicted(run, photos, engine=engine)


@pytest.mark.slow
def test_overwriting_removes_the_onnx_file(photos, tmp_path):
    train(photos, tmp_path, network=LENET)
    run = train(photos, tmp_path, network=LENET, compute={"engine": "torch"}, overwrite=True)
    assert not (run / "model.onnx").exists()


def test_torch_is_used_if_there_is_a_gpu(trained, photos, monkeypatch):
    monkeypatch.setattr(model, "has_gpu_driver", lambda: True)
    run = load_run(trained.run)
    assert "torch" in Predictor(run).model.name
    assert "ONNX" in Predictor(run, device="cpu").model.name
    assert "ONNX" in Predictor(run, engine="onnx").model.name
    with pytest.raises(UsageError, match="runs on a CPU, not on cuda"):
        Predictor(run, device="cuda", engine="onnx")


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_failed_images_keep_their_rows_for_any_batches(trained, photos, tmp_path, engine):
    """There are whole batches of broken images at the beginning, in the middle, and at the end."""
    good = [str(path) for path in sorted(photos.rglob("*.jpg"))[:6]]
    broken = []
    for number in range(11):
        (tmp_path / f"{number}.jpg").write_bytes(b"\xff\xd8 no image")
        broken.append(str(tmp_path / f"{number}.jpg"))
    inputs = (*broken[:3], *good[:3], *broken[3:7], good[3], broken[7], good[4], good[5], *broken[8:])
    compute = ComputeSettings(workers=2, batch_size=2, engine=engine)
    rows = predict(PredictSettings(run=trained.run, inputs=inputs, compute=compute)).rows
    assert [row["path"] for row in rows] == list(inputs)
    assert [row["status"] for row in rows] == ["failed" if path in broken else "ok" for path in inputs]
    everything = predict(PredictSettings(run=trained.run, inputs=(*broken,), compute=compute))
    assert everything.failed == len(broken)
