"""The documented results on real photographs, if present; in new processes where memory is measured."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tlcli.cli.main import run

CLOTHING = Path(__file__).parents[2] / "shared" / "data" / "clothing"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CLOTHING.is_dir(), reason=f"the clothing images are not at {CLOTHING}"),
]


def tlcli(*arguments):
    """Run a command in this process."""
    assert run([*map(str, arguments), "--quiet"]) == 0


def test_engines_agree_on_photographs(tmp_path):
    """Features have a cosine similarity of 0.9999, and all 372 images get the same label."""
    features, labels = {}, {}
    tlcli("finetune", CLOTHING / "test", "--out", tmp_path / "run", "--cache", tmp_path / "onnx")
    for engine in ("torch", "onnx"):
        rows = tmp_path / f"{engine}.parquet"
        tlcli("predict", tmp_path / "run", CLOTHING / "test", "--engine", engine, "--out", rows)
        labels[engine] = pq.read_table(rows)["label"].to_pylist()
        exported = tmp_path / f"{engine} features.parquet"
        tlcli(
            "cache-features", CLOTHING / "test", "--engine", engine, "--cache", tmp_path / engine, "--export", exported
        )
        table = pq.read_table(exported)
        features[engine] = table["feature"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    assert len(labels["torch"]) == len(features["torch"]) == 372
    assert labels["onnx"] == labels["torch"]
    norms = np.linalg.norm(features["torch"], axis=1) * np.linalg.norm(features["onnx"], axis=1)
    assert ((features["torch"] * features["onnx"]).sum(axis=1) / norms).min() >= 0.9999


def test_finetune_evaluate_and_predict_on_clothing(tmp_path, measured, monkeypatch, capsys):
    out = tmp_path / "run"
    monkeypatch.setenv("TLCLI_CACHE", str(tmp_path / "cache"))

    def result_of(*arguments):
        tlcli(*arguments, "--json")
        return json.loads(capsys.readouterr().out)

    done, peak = measured("finetune", CLOTHING, "--out", out, "--json")
    assert done.returncode == 0, done.stderr.decode()
    info = json.loads(done.stdout)
    assert info["images"] | {"train": 3068, "validation": 341, "test": 372, "failed": 0} == info["images"]
    assert info["test"]["accuracy"] >= 0.885
    assert peak < 2.5e6

    warm = result_of("finetune", CLOTHING, "--out", tmp_path / "warm")
    assert warm["images"]["computed"] == 0
    assert warm["files"]["model.safetensors"] == info["files"]["model.safetensors"]

    evaluated = result_of("evaluate", out, CLOTHING)
    assert evaluated["split"] == "test"
    assert evaluated["confusion"] == info["test"]["confusion"]

    shirts = CLOTHING / "test" / "t-shirt"
    predicted = result_of("predict", out, shirts, "--out", tmp_path / "rows.csv")
    row = info["test"]["confusion"][info["classes"].index("t-shirt")]
    assert predicted["labels"] == {name: count for name, count in zip(info["classes"], row, strict=True) if count}


def test_check_finds_the_photograph_with_two_labels(tmp_path, measured):
    """It was saved again, as a skirt and as shorts. None of the 7 million other pairs is reported as a copy."""
    done, peak = measured("check", CLOTHING, "--json", TLCLI_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 3, done.stderr.decode()
    found = json.loads(done.stdout)
    assert [found[key] for key in ("images", "unreadable", "duplicates", "leaks")] == [3781, 0, 0, 0]
    assert (found["near_duplicates"], found["conflicts"]) == (1, 1)
    (conflict,) = [finding for finding in found["findings"] if finding["kind"] == "conflict"]
    assert {conflict["class"], conflict["other_class"]} == {"shorts", "skirt"}
    assert found["suspects"] < 0.06 * 3781
    assert peak < 2.5e6
