"""The installed `tlcli` command in subprocesses, as a user runs it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tlcli.cli.main import run

TLCLI = [str(Path(sys.executable).with_name("tlcli"))]


def call(*arguments, cwd=None, stdin=None, **environment):
    return subprocess.run(
        [*TLCLI, *map(str, arguments)],
        capture_output=True,
        cwd=cwd,
        input=stdin,
        env=os.environ | environment,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def work(photos, tmp_path_factory):
    """A folder with a dataset of which one image is broken."""
    root = tmp_path_factory.mktemp("work")
    shutil.copytree(photos, root / "photos")
    (root / "photos" / "disc" / "broken.jpg").write_bytes(b"not an image")
    return root


@pytest.fixture(scope="module")
def finetuned(work):
    return call("finetune", "photos", "--size", 64, cwd=work, TLCLI_CACHE=str(work / "cache"))


def test_finetune_for_people(work, finetuned):
    output = finetuned.stderr.decode()
    assert finetuned.returncode == 3, output
    assert finetuned.stdout == b""
    for expected in ("3 classes", "Features", "Accuracy", "always", "precision", "Run       runs/photos", "Next"):
        assert expected in output
    assert "photos/disc/broken.jpg: not an image of a known format" in output
    assert "details: tlcli check photos" in output
    assert "\x1b" not in output, "no escape codes if stderr is not a terminal"
    assert (work / "runs" / "photos" / "run.json").exists()


@pytest.mark.slow
def test_finetune_for_machines(work, finetuned):
    done = call("finetune", "photos", "--size", 64, "--json", cwd=work, TLCLI_CACHE=str(work / "cache"))
    info = json.loads(done.stdout)
    assert info["run"] == "runs/photos-2"
    assert info.keys() >= {"run", "backbone", "freeze", "classes", "images", "validation", "test", "seconds"}
    assert info["freeze"].keys() == {"layer", "name", "of"}
    assert info["images"].keys() >= {"train", "validation", "test", "skipped", "failed"}
    assert info["seconds"].keys() >= {"total", "features", "training"}
    assert info["images"]["failed"] == 1
    assert info["images"]["computed"] == 0


def test_predict_rows(work, finetuned):
    done = call("predict", "runs/photos", "photos/disc", "--top", 2, "--probabilities", cwd=work)
    assert done.returncode == 3
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert list(rows[0]) == [
        *("path", "label", "confidence", "status", "error", "novelty", "label_2", "confidence_2"),
        *("p:disc", "p:square", "p:stripes"),
    ]
    assert [row["path"] for row in rows] == sorted(
        f"photos/disc/{path.name}" for path in (work / "photos/disc").iterdir()
    )
    failed = rows[-1]
    assert failed["path"] == "photos/disc/broken.jpg"
    assert failed["status"] == "failed"
    assert failed["label"] == failed["confidence"] == ""
    assert "not an image" in failed["error"]
    for row in rows[:-1]:
        shares = [float(row[f"p:{name}"]) for name in ("disc", "square", "stripes")]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert float(row["confidence"]) == max(shares)
        assert row["status"] == ("unknown" if float(row["novelty"]) > 0.99 else "ok")


@pytest.mark.slow
def test_predict_formats_have_the_same_content(work, finetuned, tmp_path, monkeypatch, capfd):
    import pyarrow.parquet as pq

    monkeypatch.chdir(work)
    for name in ("rows.csv", "rows.jsonl", "rows.parquet"):
        assert run(["predict", "runs/photos", "photos", "--out", str(tmp_path / name), "--min-confidence", "0.9"]) == 3
        assert capfd.readouterr().out == ""
    parquet = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    with (tmp_path / "rows.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert parquet == lines
    assert len(table) == len(lines) == 46
    for row, line in zip(table, lines, strict=True):
        assert row == {name: "" if value is None else str(value) for name, value in line.items()}
    assert {line["status"] for line in lines} <= {"ok", "review", "unknown", "failed"}
    for line in lines:
        if line["status"] != "failed":
            assert (line["status"] == "unknown") == (line["novelty"] > 0.99)
            assert (line["status"] == "ok") == (line["confidence"] >= 0.9 and line["novelty"] <= 0.99)


def test_predict_refuses_to_overwrite(work, finetuned, tmp_path):
    out = tmp_path / "labels.csv"
    out.write_text("precious")
    done = call("predict", "runs/photos", "photos", "--out", out, cwd=work)
    assert done.returncode == 2
    assert out.read_text() == "precious"
    done = call("predict", "runs/photos", "photos", "--out", out, "--overwrite", "--json", cwd=work)
    assert done.returncode == 3
    result = json.loads(done.stdout)
    assert result | {"images": 46, "failed": 1, "out": str(out)} == result
    assert result.keys() >= {"seconds", "images_per_second"}
    assert len(out.read_text().splitlines()) == 47


def test_predict_a_list_on_stdin(work, finetuned):
    listed = b"photos/square/03.jpg\nphotos/disc/01.jpg\nphotos/nowhere.jpg\n"
    done = call("predict", "runs/photos", "-", cwd=work, stdin=listed)
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [row["path"] for row in rows] == listed.decode().split()
    assert [row["status"] for row in rows] == ["ok", "ok", "failed"]
    assert done.returncode == 3


def test_evaluate(work, finetuned):
    done = call("evaluate", "runs/photos", "photos", "--json", cwd=work)
    assert done.returncode == 3
    result = json.loads(done.stdout)
    keys = "split images failed accuracy top5_accuracy macro_f1 loss ece confusion per_class".split()
    assert result.keys() >= set(keys)
    assert result["split"] == "all"
    assert result["images"] == 45
    assert b"trained on" in done.stderr
    assert sum(map(sum, result["confusion"])) == 45


def test_module_and_version():
    done = subprocess.run([sys.executable, "-m", "tlcli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tlcli 0.")


SLOW_FEATURES = """
import time
from tlcli.features import store

store.FLUSH_SECONDS = 0.0
add = store.FeatureStore.add

def add_slowly(self, *row):
    add(self, *row)
    time.sleep(0.1)

store.FeatureStore.add = add_slowly
from tlcli.cli.main import main
main()
"""
"""tlcli with a part of the cache for each image, and some seconds for the features of `photos`."""
NETWORK = ("--backbone", "lenet5", "--weights", "none", "--engine", "torch", "--batch-size", 4)


@pytest.fixture(scope="module")
def uninterrupted(photos, tmp_path_factory):
    """The result of finetune on `photos`."""
    root = tmp_path_factory.mktemp("uninterrupted")
    return finetune_here(photos, root)


def finetune_here(photos, folder, *options):
    """Return the content of run.json after finetune with `NETWORK` in this process."""
    command = ["finetune", photos, *NETWORK, "--out", folder / "run", "--cache", folder / "cache", "--quiet", *options]
    assert run([*map(str, command)]) == 0
    return json.loads((folder / "run" / "run.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_while_computing_features_the_next_run_resumes(photos, uninterrupted, tmp_path, number):
    """Ctrl-C, a termination and a kill leave a usable cache, no partial run and no process behind."""
    command = ["finetune", photos, *NETWORK, "--out", tmp_path / "run"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_FEATURES, *map(str, command)],
        env=os.environ | {"TLCLI_CACHE": str(tmp_path / "cache")},
        stderr=subprocess.PIPE,
    )
    while b"to compute" not in process.stderr.readline():
        assert process.poll() is None
    children = []
    while not children:
        assert process.poll() is None, "images are decoded in other processes"
        tasks = Path(f"/proc/{process.pid}/task").iterdir()
        children = [pid for task in tasks for pid in (task / "children").read_text().split()]
    while not list((tmp_path / "cache").glob("*/part-*.arrow")):
        assert process.poll() is None, "parts are written during the computation"
        time.sleep(0.01)
    process.send_signal(number)
    messages = process.communicate(timeout=60)[1].decode()
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert process.returncode == expected, messages
    if number != signal.SIGKILL:
        assert "repeat the command to continue" in messages
        assert not (tmp_path / "run").exists()
    time.sleep(1)
    assert not [pid for pid in children if Path(f"/proc/{pid}/exe").exists()]

    resumed = finetune_here(photos, tmp_path, "--overwrite")
    assert uninterrupted["images"]["reused"] == 0
    assert 0 < resumed["images"]["reused"] < len(list(photos.glob("*/*")))
    assert resumed["files"]["model.safetensors"] == uninterrupted["files"]["model.safetensors"]
    assert resumed["validation"] == uninterrupted["validation"]
