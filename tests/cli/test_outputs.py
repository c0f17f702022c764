"""Outputs never replace inputs; closed or full standard streams are handled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tlcli.cli.main import run
from tlcli.progress import Silent
from tlcli.storage.locks import lock_output
from tlcli.storage.publish import atomic_write

NETWORK = ["--backbone", "lenet5", "--weights", "none", "--workers", "1"]


@pytest.fixture
def world(photos, tmp_path):
    """Images, and a table and a list of them."""
    shutil.copytree(photos, tmp_path / "photos")
    rows = [(path.relative_to(tmp_path), path.parent.name) for path in sorted((tmp_path / "photos").rglob("*.jpg"))]
    (tmp_path / "table.csv").write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    (tmp_path / "list.csv").write_text("".join(f"{tmp_path / path}\n" for path, _ in rows))
    return tmp_path


@pytest.fixture(scope="module")
def small_run(photos, tmp_path_factory):
    """A run whose network is exported in a second."""
    folder = tmp_path_factory.mktemp("small") / "run"
    command = ["finetune", str(photos), "--out", str(folder), *NETWORK, "--engine", "torch", "--no-cache", "--quiet"]
    assert run(command) == 0
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["augment", "photos", "--preview", "photos/disc/new.png"], "is inside DATA"),
        (["augment", "table.csv", "--preview", "linked.png", "--overwrite"], "is an input of this command"),
        (["check", "table.csv", "--out", "table.csv", "--overwrite"], "is an input of this command"),
        (["predict", "RUN", "@list.csv", "--out", "list.csv", "--overwrite"], "is an input of this command"),
        (["predict", "RUN", "photos", "--out", "RUN/predictions.parquet", "--overwrite"], "is inside the run"),
        (["predict", "RUN", "photos", "--out", "RUN/rows.csv"], "is inside the run"),
        (["export", "RUN", "--format", "onnx", "--data", "photos", "--out", "photos/x.onnx"], "is inside DATA"),
        (["export", "RUN", "--format", "timm", "--data", "photos", "--out", "RUN/timm"], "is inside the run"),
        (["finetune", "photos", "--out", "photos/run", *NETWORK], "is inside DATA"),
        (["finetune", "photos", "--out", "run", "--cache", "photos/cache", *NETWORK], "is inside DATA"),
    ],
)
def test_outputs_inside_inputs_are_refused(command, message, world, trained, monkeypatch, capsys):
    monkeypatch.chdir(world)
    (world / "linked.png").symlink_to(world / "photos" / "disc" / "00.jpg")
    run_copy = world / "trained"
    shutil.copytree(trained.run, run_copy)
    before = contents(world)
    assert run([word.replace("RUN", str(run_copy)) for word in command]) == 2
    assert message in capsys.readouterr().err
    assert contents(world) == before


@pytest.mark.parametrize(
    ("command", "option", "name"), [("check", "--out", "x.csv"), ("cache-features", "--export", "x.parquet")]
)
def test_an_unwritable_output_is_reported_before_the_computation(
    command, option, name, public_path, unprivileged, capsys
):
    out = public_path / name
    assert run([command, str(public_path / "nowhere"), option, str(out)]) == 4
    capsys.readouterr()
    with unprivileged():
        assert run([command, str(public_path / "nowhere"), option, str(out)]) == 5
    assert f"{out}: permission denied" in capsys.readouterr().err, "before DATA, which does not exist, is read"
    assert list(public_path.iterdir()) == []


def test_an_export_that_would_replace_its_table_is_refused(world, monkeypatch, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.chdir(world)
    table = world / "table.parquet"
    pq.write_table(pa.table({"path": ["photos/disc/00.jpg", "photos/square/00.jpg"], "label": ["a", "b"]}), table)
    before = table.read_bytes()
    assert run(["cache-features", str(table), "--export", str(table), "--overwrite", *NETWORK]) == 2
    assert "is an input of this command" in capsys.readouterr().err
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["cache-features", "photos", "--cache", "cache", *NETWORK, "--export"], "found.parquet"),
        pytest.param(["augment", "photos", "--workers", "1", "--preview"], "found.png", marks=pytest.mark.slow),
        pytest.param(["augment", "photos", "--workers", "1", "--preview"], "x" * 251 + ".png", marks=pytest.mark.slow),
        pytest.param(["check", "photos", "--cache", "cache", *NETWORK, "--out"], "found.csv", marks=pytest.mark.slow),
        pytest.param(
            ["export", "RUN", "--format", "onnx", "--data", "photos", "--out"], "found.onnx", marks=pytest.mark.slow
        ),
    ],
)
def test_temporary_files_of_killed_writers_are_removed(command, name, world, small_run, monkeypatch, capsys):
    """But not while another process writes the file."""
    monkeypatch.chdir(world)
    (world / "cache").mkdir()
    before = set(world.iterdir())
    command = [*(word.replace("RUN", str(small_run)) for word in command), name]
    killed = atomic_write(world / name)
    killed.__enter__()
    with lock_output(world / name, Silent()):
        assert run(command) == 5
        assert f"{name} is locked: process {os.getpid()} is writing it" in capsys.readouterr().err
        assert len(set(world.iterdir()) - before) == 2
    assert run(command) in {0, 3}  # check has findings
    assert set(world.iterdir()) - before == {world / name}


def test_evaluate_warns_if_test_images_were_trained_on(trained, photos, tmp_path, capsys):
    shutil.copytree(photos, tmp_path / "data" / "test")
    assert run(["evaluate", str(trained.run), str(tmp_path / "data"), "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["split"] == "test"
    assert "the run was trained on 45 of these 45 test images" in output.err


@pytest.mark.parametrize("name", ["", "@"])
def test_an_empty_input_is_refused(name, trained, capsys):
    assert run(["predict", str(trained.run), name]) == 4
    assert f"an INPUT is empty ({name!r})" in capsys.readouterr().err


def shell(line, *words):
    command = [sys.executable, "-m", "tlcli", *map(str, words)]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {line}', "sh", *command], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("line", "words", "code"),
    [
        ("<&-", ["predict", "RUN", "DATA", "--json"], 0),
        pytest.param(">&-", ["predict", "RUN", "DATA"], 0, marks=pytest.mark.slow),
        pytest.param(">&-", ["layers", "lenet5", "--json"], 0, marks=pytest.mark.slow),
        pytest.param("2>&-", ["predict", "RUN", "DATA"], 0, marks=pytest.mark.slow),
        pytest.param("2>/dev/full", ["predict", "RUN", "DATA"], 0, marks=pytest.mark.slow),
        (">/dev/full", ["predict", "RUN", "DATA"], 5),
        pytest.param(">/dev/full", ["layers", "lenet5", "--json"], 5, marks=pytest.mark.slow),
        pytest.param(">/dev/full", ["evaluate", "RUN", "DATA", "--json"], 5, marks=pytest.mark.slow),
        pytest.param(">/dev/full 2>/dev/full", ["layers", "lenet5", "--json"], 5, marks=pytest.mark.slow),
        ("2>/dev/full", ["predict", "nowhere", "DATA"], 4),
    ],
)
def test_closed_or_full_streams(line, words, code, trained, photos):
    done = shell(line, *(word.replace("RUN", str(trained.run)).replace("DATA", str(photos)) for word in words))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if words[0] == "predict" and code == 0 and not line.startswith(">"):
        assert "disc/00.jpg" in done.stdout
