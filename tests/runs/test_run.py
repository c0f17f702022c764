"""Runs: written completely, and refused if anything in them was changed."""

import json
import os
import random
import shutil

import pyarrow.parquet as pq
import pytest
import torch

from tlcli.errors import ArtifactError, MachineError, UsageError
from tlcli.images.preprocess import Preprocessing
from tlcli.runs.directory import (
    CHECKPOINTS,
    UNFINISHED,
    check_run_output,
    free_name,
    new_run,
    recover_run,
    unfinished_run,
)
from tlcli.runs.run import load_run
from tlcli.runs.write import RunContent, write_run

WEIGHTS = {"head.weight": torch.arange(6.0).reshape(2, 3).t(), "steps": torch.tensor(3)}
PREDICTIONS = [
    {
        "path": "photos/a\n.jpg",
        "label": "cat",
        "split": "test",
        "predicted": "dog",
        "confidence": 0.75,
        "probabilities": [0.25, 0.75],
    }
]


@pytest.fixture
def info(small):
    return {
        "created": "2026-11-23T15:00:00+00:00",
        "classes": ["cat", "dög"],
        "preprocessing": small.to_json(),
        "temperature": 1.25,
        "log_prior": None,
        "precision": "fp32",
        "backbone": "tiny",
        "settings": {},
        "freeze": {"layer": 3, "name": "blocks.2", "of": 9},
    }


def write(directory, info):
    directory.mkdir(parents=True, exist_ok=True)
    content = RunContent(
        weights=WEIGHTS,
        config={"architecture": "tiny", "num_classes": 2},
        info=info,
        epochs=[{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}],
        predictions=PREDICTIONS,
        splits={bytes(32): "train", bytes([1] * 32): "validation"},
        report="<html>é \udce9</html>",
        onnx=b"pixels to logits",
    )
    return write_run(directory, content)


@pytest.fixture
def run(tmp_path, info):
    write(tmp_path / "run", info)
    return tmp_path / "run"


def test_write_and_load(run, small):
    loaded = load_run(run)
    assert loaded.classes == ("cat", "dög")
    assert loaded.preprocessing == small
    assert isinstance(loaded.preprocessing, Preprocessing)
    assert loaded.temperature == 1.25
    assert loaded.layer == 3
    assert loaded.config == {"architecture": "tiny", "num_classes": 2}
    weights = loaded.weights()
    assert weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)


def test_files_are_readable_without_tlcli(run):
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
    assert pq.read_table(run / "predictions.parquet").to_pylist() == PREDICTIONS
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
def test_a_run_overwritten_after_loading_is_not_mixed_with_the_new_one(run, info, name):
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


def test_run_json_is_written_last(tmp_path, info):
    with pytest.raises(TypeError):
        write(tmp_path / "run", info | {"odd": object()})
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "run.json").exists()


# Where a run is written.


def test_a_new_run(tmp_path, info):
    with new_run(tmp_path / "in" / "run", overwrite=False) as directory:
        write(directory, info)
    assert load_run(tmp_path / "in" / "run").layer == 3


def test_a_new_run_that_got_nothing_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_run(tmp_path / "run", overwrite=False):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_overwriting_replaces_all_of_the_old_run(run, info):
    (run / ".report.html.abc.tmp").write_bytes(b"left by a kill")
    with new_run(run, overwrite=True) as directory:
        write(directory, info | {"temperature": 2.0})
        assert load_run(run).temperature == 1.25
    assert load_run(run).temperature == 2.0
    assert not (run / ".report.html.abc.tmp").exists()
    assert [path.name for path in run.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt])
def test_an_exception_keeps_the_old_run_whole(run, info, problem):
    def interrupted():
        with new_run(run, overwrite=True) as directory:
            write(directory, info | {"temperature": 2.0})
            raise problem

    with pytest.raises(problem):
        interrupted()
    assert load_run(run).temperature == 1.25
    assert [path.name for path in run.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("left", [".run.new", ".run.old"])
def test_what_a_killed_overwriting_left_is_no_hindrance(run, info, left):
    shutil.copytree(run, run.with_name(left))
    with new_run(run, overwrite=True) as directory:
        write(directory, info | {"temperature": 2.0})
    assert load_run(run).temperature == 2.0
    assert [path.name for path in run.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("names", [["thesis.tex"], ["config.json", "thesis.tex"], ["config.json", "src/main.py"]])
def test_overwriting_leaves_alone_what_is_no_run(tmp_path, names):
    for name in names:
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    with pytest.raises(UsageError, match=r"is not a run|not part of a run"), new_run(tmp_path / "mine", overwrite=True):
        pass
    assert all((tmp_path / "mine" / name).read_text() == "{}" for name in names)


def test_an_unfinished_run_may_be_overwritten(run, info):
    (run / "run.json").unlink()
    (run / UNFINISHED).touch()
    with new_run(run, overwrite=True) as directory:
        write(directory, info)
    assert load_run(run).layer == 3


def test_an_empty_directory_is_as_good_as_none(tmp_path):
    (tmp_path / "run").mkdir()
    check_run_output(tmp_path / "run", overwrite=False)


def test_what_exists_is_not_written_to(tmp_path, run):
    with pytest.raises(UsageError, match="--overwrite"):
        check_run_output(run, overwrite=False)
    with pytest.raises(UsageError, match="is a file"):
        check_run_output(run / "run.json", overwrite=True)


def test_a_free_name_for_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "labels.csv").touch()
    names = [str(free_name(tmp_path / "photos"))]
    for _ in range(2):
        (tmp_path / names[-1]).mkdir(parents=True)
        names.append(str(free_name(tmp_path / "photos")))
    assert names == ["runs/photos", "runs/photos-2", "runs/photos-3"]
    assert str(free_name(tmp_path / "labels.csv")) == "runs/labels"
    monkeypatch.chdir(tmp_path / "photos")
    assert free_name(tmp_path / "photos" / ".").name == "photos"


def test_checkpoints_are_gone_on_with_and_vanish_at_the_end(tmp_path, info):
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt) as stopped, new_run(out, overwrite=False) as directory:  # noqa: PT012
        (directory / CHECKPOINTS).mkdir()
        (directory / CHECKPOINTS / "origin.json").write_text("{}")
        (directory / CHECKPOINTS / "state").write_text("half")
        raise KeyboardInterrupt
    assert f"--out {out} --resume" in stopped.value.__notes__[0]
    with pytest.raises(UsageError, match="unfinished run"):
        check_run_output(out, overwrite=False)
    with new_run(out, overwrite=False, resume=True) as directory:
        assert (directory / CHECKPOINTS / "state").read_text() == "half"
        write(directory, info)
    assert not (out / CHECKPOINTS).exists()
    assert load_run(out).layer == 3


def test_an_interrupted_overwriting_with_checkpoints_goes_on_beside_the_old_run(run, info):
    with pytest.raises(KeyboardInterrupt), new_run(run, overwrite=True) as directory:  # noqa: PT012
        (directory / CHECKPOINTS).mkdir()
        raise KeyboardInterrupt
    assert load_run(run).layer == 3
    assert unfinished_run(run) == directory
    with new_run(run, overwrite=False, resume=True) as again:
        assert again == directory
        write(again, info | {"temperature": 2.0})
    assert load_run(run).temperature == 2.0
    assert unfinished_run(run) is None


def test_overwriting_again_from_the_start_forgets_old_checkpoints(run):
    with pytest.raises(KeyboardInterrupt), new_run(run, overwrite=True) as directory:  # noqa: PT012
        (directory / CHECKPOINTS).mkdir()
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), new_run(run, overwrite=True) as directory:  # noqa: PT012
        assert not (directory / CHECKPOINTS).exists()
        raise KeyboardInterrupt


def test_a_run_killed_between_its_end_and_its_place_takes_it_later(run, info):
    staged = run.with_name(".run.new")
    write(staged, info | {"temperature": 2.0})
    recover_run(run)
    assert load_run(run).temperature == 2.0
    assert not staged.exists()


def test_checkpoints_left_in_a_finished_run_are_removed(run):
    (run / CHECKPOINTS).mkdir()
    (run / CHECKPOINTS / "notes.txt").write_text("mine")
    recover_run(run)
    assert (run / CHECKPOINTS).exists(), "somebody else's"
    (run / CHECKPOINTS / "origin.json").write_text("{}")
    recover_run(run)
    assert not (run / CHECKPOINTS).exists()


def test_a_run_has_one_writer_at_a_time(tmp_path, info):
    out = tmp_path / "run"
    with new_run(out, overwrite=False) as directory:
        for overwrite in (False, True):  # the message is not about an unfinished run, which could be resumed
            with pytest.raises(MachineError, match=f"is locked: process {os.getpid()} is writing"):
                check_run_output(out, overwrite=overwrite)
        write(directory, info)
        with pytest.raises(MachineError, match=f"process {os.getpid()} is writing"), new_run(out, overwrite=True):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
