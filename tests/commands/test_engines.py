"""Engines differ in speed only."""

from __future__ import annotations

import importlib.util

import numpy as np
import pyarrow.parquet as pq
import pytest

from tlcli.commands.cache_features import cache_features
from tlcli.commands.finetune import finetune
from tlcli.commands.predict import predict
from tlcli.engines import choice, onnx_export
from tlcli.errors import UsageError
from tlcli.features.listing import list_caches
from tlcli.runs.run import load_run
from tlcli.settings import (
    CacheFeaturesSettings,
    CacheSettings,
    ComputeSettings,
    FinetuneSettings,
    NetworkSettings,
    PredictSettings,
    TrainingSettings,
)
from tlcli.settings.augmentation import Augmentation

NETWORK = NetworkSettings(size=64)


def features_of(photos, folder, *, cache, **compute):
    """Return the exported features, and the result of cache-features."""
    folder.mkdir()
    settings = CacheFeaturesSettings(
        data=photos,
        export=folder / "features.parquet",
        network=NETWORK,
        compute=ComputeSettings(workers=1, **compute),
        cache=CacheSettings(directory=cache),
    )
    result = cache_features(settings)
    return np.array(pq.read_table(settings.export)["feature"].to_pylist()), result


@pytest.mark.slow
def test_features_agree_and_share_a_cache(photos, tmp_path):
    plain, _ = features_of(photos, tmp_path / "torch", cache=tmp_path / "one", engine="torch")
    onnx, result = features_of(photos, tmp_path / "onnx", cache=tmp_path / "two", engine="onnx")
    assert result["computed"] == len(onnx)
    cosine = (plain * onnx).sum(1) / np.linalg.norm(plain, axis=1) / np.linalg.norm(onnx, axis=1)
    assert cosine.min() >= 0.9999
    if importlib.util.find_spec("openvino"):
        openvino, result = features_of(photos, tmp_path / "openvino", cache=tmp_path / "three", engine="openvino")
        assert result["computed"] == len(openvino)
        np.testing.assert_allclose(openvino, onnx, rtol=1e-3, atol=1e-4)
    _, again = features_of(photos, tmp_path / "again", cache=tmp_path / "two", engine="torch")
    assert (again["computed"], again["reused"]) == (0, len(onnx))


@pytest.mark.slow
@pytest.mark.parametrize("freeze", ["all", "blocks.3"])
def test_runs_agree_and_record_their_engine(photos, tmp_path, freeze):
    infos = {}
    engines = ["torch", "onnx", *(["openvino"] if importlib.util.find_spec("openvino") else [])]
    for name in engines:
        infos[name] = finetune(
            FinetuneSettings(
                data=photos,
                out=tmp_path / name,
                network=NetworkSettings(size=64, freeze=freeze),
                training=TrainingSettings(epochs=None if freeze == "all" else 1),
                compute=ComputeSettings(engine=name, workers=1, precision="fp32"),
                cache=CacheSettings(directory=tmp_path / f"cache of {name}"),
            )
        )
        assert load_run(tmp_path / name).info["engine"] == name
    for name in engines:
        assert infos[name]["validation"]["loss"] == pytest.approx(infos["torch"]["validation"]["loss"], abs=1e-3)
    labels = {
        name: [
            row["label"]
            for row in predict(
                PredictSettings(
                    run=tmp_path / "onnx", inputs=(str(photos),), compute=ComputeSettings(engine=name, workers=1)
                )
            ).rows
        ]
        for name in engines
    }
    assert all(found == labels["torch"] for found in labels.values())
    assert labels["onnx"]


@pytest.mark.slow
def test_auto_chooses_onnx_for_many_images(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "MIN_IMAGES_FOR_ONNX", 10)
    features_of(photos, tmp_path / "many", cache=tmp_path / "cache")
    (export,) = (tmp_path / "cache").glob("*/prefix-*.onnx")
    (listed,) = list_caches(tmp_path / "cache")
    assert listed.bytes > export.stat().st_size


@pytest.mark.slow
def test_without_frozen_layers_no_prefix_is_exported(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "MIN_IMAGES_FOR_ONNX", 10)
    settings = FinetuneSettings(
        data=photos,
        out=tmp_path / "run",
        network=NetworkSettings(backbone="lenet5", weights="none", freeze="none"),
        training=TrainingSettings(epochs=1),
        augmentation=Augmentation(),
        cache=CacheSettings(directory=tmp_path / "cache"),
    )
    assert finetune(settings)["engine"] == "torch"
    assert [path.name for path in tmp_path.rglob("*.onnx")] == ["model.onnx"], "the whole network, for predict"


def test_auto_falls_back_to_torch_but_an_explicit_engine_does_not(photos, tmp_path, monkeypatch):
    def no_export(*_):
        raise onnx_export.ExportError("torch cannot export it")

    monkeypatch.setattr(onnx_export, "_export", no_export)
    monkeypatch.setattr(choice, "MIN_IMAGES_FOR_ONNX", 10)
    found, _ = features_of(photos, tmp_path / "auto", cache=tmp_path / "one")
    assert np.isfinite(found).all()
    with pytest.raises(UsageError, match="--engine onnx: torch cannot export it"):
        features_of(photos, tmp_path / "asked", cache=tmp_path / "two", engine="onnx")
