"""Runs: written completely, and refused if anything in them was changed."""

import json
import random

import pyarrow.parquet as pq
import pytest
import torch

from tlcli.errors import ArtifactError
from tlcli.images.preprocess import Preprocessing
from tlcli.runs.directory import UNFINISHED
from tlcli.runs.run import load_run


def test_write_and_load(run, small, weights):
    loaded = load_run(run)
    assert loaded.classes == ("cat", "dög")
    assert loaded.preprocessing == small
    assert isinstance(loaded.preprocessing, Preprocessing)
    assert loaded.temperature == 1.25
    assert loaded.layer == 3
    assert loaded.config == {"architecture": "tiny", "num_classes": 2}
    loaded_weights = loaded.weights()
    assert loaded_weights.keys() == weights.keys()
    assert all(torch.equal(loaded_weights[name], weights[name]) for name in weights)


def test_files_are_readable_without_tlcli(run, predictions):
    assert sorted(path.name for path in run.iterdir()) == [
        "config.json",
        "metrics.jsonl",
        "model.onnx",
        "model.safetensors",
        "predictions.parquet",
        "report.html",
        "run.json",
        "splits.parquet",
    ]
    assert pq.read_table(run / "predictions.parquet").to_pylist() == predictions
    assert [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert json.loads((run / "config.json").read_text())["architecture"] == "tiny"


def test_a_run_can_be_moved(run, tmp_path):
    run.rename(tmp_path / "elsewhere")
    assert load_run(tmp_path / "elsewhere").classes == ("cat", "dög")


def test_additional_files_are_ignored(run):
    (run / "notes.txt").write_text("the good one")
    assert load_run(run).layer == 3


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "metrics.jsonl",
        "model.onnx",
        "model.safetensors",
        "predictions.parquet",
        "report.html",
        "splits.parquet",
    ],
)
def test_a_changed_byte_or_length_is_refused(run, name):
    path = run / name
    whole = path.read_bytes()
    draw = random.Random(name)
    damages = [whole[:-1], whole + b"\0", b""]
    for _ in range(30):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        damages.append(bytes(flipped))
    for damage in damages:
        path.write_bytes(damage)
        with pytest.raises(ArtifactError) as caught:
            load_run(run)
        assert caught.value.path == str(path)
    path.write_bytes(whole)
    load_run(run)


def test_a_changed_bit_of_run_json_is_refused_or_harmless(run):
    path = run / "run.json"
    whole = path.read_bytes()
    before, refused = load_run(run).info, 0
    draw = random.Random(0)
    for offset in range(len(whole)):
        flipped = bytearray(whole)
        flipped[offset] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            assert load_run(run).info == before  # white space for white space
        except ArtifactError:
            refused += 1
    assert refused > 0.95 * len(whole)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "report.html"])
def test_the_error_names_the_missing_file(run, name):
    (run / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        load_run(run)


@pytest.mark.parametrize("name", ["model.safetensors", "splits.parquet", "model.onnx"])
def test_a_run_overwritten_after_loading_is_not_mixed_with_the_new_one(run, info, name, write):
    """`finetune --overwrite` may finish while a command that loaded the old run still lists its images."""
    opened = load_run(run)
    read = {"model.safetensors": opened.weights, "splits.parquet": opened.splits}.get(
        name, lambda: opened.content(name)
    )
    assert read()
    other = run.with_name("other")
    write(other, info | {"temperature": 2.0})
    (other / name).write_bytes((other / name).read_bytes() + b"\0")
    (other / name).replace(run / name)
    with pytest.raises(ArtifactError, match=f"{name} was changed since"):
        read()
    (run / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        read()


def test_other_directories_and_unfinished_runs_are_refused(tmp_path, run):
    with pytest.raises(ArtifactError, match="not a directory"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="not a directory"):
        load_run(run / "run.json")
    (run / "run.json").unlink()
    (run / UNFINISHED).touch()
    with pytest.raises(ArtifactError, match="did not finish"):
        load_run(run)


def test_another_format_is_refused(run):
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(content | {"format": 999}))
    with pytest.raises(ArtifactError, match="format 999"):
        load_run(run)


def test_run_json_is_written_last(tmp_path, info, write):
    with pytest.raises(TypeError):
        write(tmp_path / "run", info | {"odd": object()})
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "run.json").exists()
