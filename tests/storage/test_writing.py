"""Runs and outputs at URLs: uploaded when complete, never over other files, and read back."""

from __future__ import annotations

import csv
import io
import json
import shutil

import pytest

from tlcli.cli.main import run
from tlcli.errors import MachineError
from tlcli.storage import connection, outputs
from tlcli.storage.outputs import Target, published
from tlcli.storage.urls import default_cache, parse_location


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A separate cache, which contains the staged outputs."""
    monkeypatch.setenv("TLCLI_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(connection, "PAUSE", 0.01)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def remote_run(trained, s3):
    s3.put(str(trained.run), "bucket/run", recursive=True)
    return "s3://bucket/run"


def staged_files():
    return [path for path in (default_cache() / "outputs").rglob("*") if path.is_file()]


def rows_of(content):
    return list(csv.DictReader(io.StringIO(content.decode())))


@pytest.mark.slow
def test_run_is_written_read_and_replaced(s3, remote_photos, trained, home, faults, capfd):
    train = ["finetune", remote_photos, "--size", "64", "--out", "s3://bucket/runs/a", "--cache", str(trained.cache)]
    assert run([*train, "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["run"] == "s3://bucket/runs/a"
    assert {path.removeprefix("bucket/runs/a/") for path in s3.find("bucket/runs/a")} == {"run.json", *result["files"]}
    puts = [key for method, key in faults.requests if method == "PUT"]
    assert puts[-1] == "bucket/runs/a/run.json"
    assert str(home) not in s3.cat("bucket/runs/a/run.json").decode()
    assert not staged_files()

    assert run(train) == 2
    assert "s3://bucket/runs/a exists" in capfd.readouterr().err.replace("\n", " ")
    assert run([*train, "--resume", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["was_finished"]
    s3.pipe_file("bucket/runs/a/notes.txt", b"mine")
    assert run([*train, "--overwrite"]) == 2
    assert "contains notes.txt" in capfd.readouterr().err.replace("\n", " ")
    s3.rm("bucket/runs/a/notes.txt")
    s3.rm("bucket/runs/a/model.onnx")
    assert run([*train, "--overwrite", "--engine", "torch"]) == 0

    assert run(["evaluate", "s3://bucket/runs/a", remote_photos, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["run"] == "s3://bucket/runs/a"
    assert not s3.exists("bucket/runs/a/model.onnx"), "files of the old run are removed"


def test_run_is_fetched_once(remote_run, trained, s3, photos, faults, capfd):
    arguments = ["predict", remote_run, str(photos / "disc"), "--json"]
    assert run(arguments) == 0
    expected = json.loads(capfd.readouterr().out)["rows"]
    faults.requests.clear()
    assert run(arguments) == 0
    assert json.loads(capfd.readouterr().out)["rows"] == expected
    assert [key for method, key in faults.requests if method == "GET"] == ["bucket/run/run.json"]

    kept = next((default_cache() / "runs").rglob("model.onnx"))
    kept.write_bytes(b"damaged")
    assert run(arguments) == 4
    assert "s3://bucket/run/model.onnx was changed" in json.loads(capfd.readouterr().out)["error"]["message"]
    assert run(arguments) == 0, "the run is fetched again"
    capfd.readouterr()
    kept = next((default_cache() / "runs").rglob("model.onnx"))
    kept.unlink()
    s3.rm("bucket/run/splits.parquet")
    assert [run(arguments), run(arguments)] == [4, 4], "neither the local copy nor the remote run is complete"
    s3.put(str(trained.run / "splits.parquet"), "bucket/run/splits.parquet")
    assert run(arguments) == 0
    assert run(["layers", "s3://bucket/photos"]) == 4
    assert "it is not a tlcli run" in capfd.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("suffix", ["csv", pytest.param("parquet", marks=pytest.mark.slow)])
def test_predictions_at_a_url(trained, remote_photos, s3, suffix, capfd, tmp_path):
    out = f"s3://bucket/labels.{suffix}"
    arguments = ["predict", str(trained.run), f"{remote_photos}/disc"]
    assert run([*arguments, "--out", str(tmp_path / f"labels.{suffix}")]) == 0
    assert run([*arguments, "--out", out, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["out"] == out
    assert s3.cat(f"bucket/labels.{suffix}") == (tmp_path / f"labels.{suffix}").read_bytes()
    assert run([*arguments, "--out", out]) == 2
    assert f"{out} exists" in capfd.readouterr().err.replace("\n", " ")
    assert run([*arguments, "--out", out, "--resume"]) == 0
    assert "is already finished" in capfd.readouterr().err.replace("\n", " ")
    assert run([*arguments, "--out", out, "--overwrite"]) == 0
    assert not staged_files()


@pytest.mark.slow
def test_failed_upload_can_be_resumed(trained, remote_photos, s3, faults, capfd):
    arguments = ["predict", str(trained.run), f"{remote_photos}/disc", "--out", "s3://bucket/kept.csv"]
    faults.written["bucket/kept.csv"] = 5
    assert run(arguments) == 5
    messages = capfd.readouterr().err.replace("\n", " ")
    assert "s3://bucket/kept.csv cannot be reached" in messages
    assert "--resume" in messages
    assert len(staged_files()) == 1
    faults.requests.clear()
    assert run([*arguments, "--resume"]) == 0
    assert not [key for _, key in faults.requests if key.endswith(".jpg")], "nothing is predicted again"
    assert len(rows_of(s3.cat("bucket/kept.csv"))) == 15
    faults.written["bucket/kept.csv"] = 2
    assert run([*arguments, "--overwrite"]) == 0, "two failures are retried"
    assert run([*arguments[:-1], "s3://bucket/fresh.csv", "--resume"]) == 0
    assert "nothing to resume" in capfd.readouterr().err


@pytest.mark.slow
def test_augmented_dataset_and_features_at_urls(trained, remote_photos, s3, capfd):
    again = ["augment", remote_photos, "--out", "s3://bucket/more"]
    assert run([*again, "--preview", "s3://bucket/look.png", "--json"]) == 0
    written = json.loads(capfd.readouterr().out)["written"]
    assert len(s3.find("bucket/more")) == written + 2
    assert s3.cat("bucket/look.png").startswith(b"\x89PNG")
    assert run(again) == 2
    assert run([*again, "--resume", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["written"] == written
    cache = ["--size", "64", "--cache", str(trained.cache)]
    assert run(["cache-features", remote_photos, *cache, "--export", "s3://bucket/features.parquet"]) == 0
    assert s3.cat("bucket/features.parquet").startswith(b"PAR1")
    assert not staged_files()


@pytest.mark.slow
def test_finished_output_is_fetched_but_never_uploaded(remote_photos, s3, capfd, faults, photos, tmp_path):
    there = tmp_path / "there"
    shutil.copytree(photos, there)
    write = ["augment", str(there), "--out", "s3://bucket/looked"]
    assert run(write) == 0
    before = s3.find("bucket/looked", detail=True)
    resume = [*write, "--resume"]
    there.rename(tmp_path / "away")
    assert run(resume) == 4
    (tmp_path / "away").rename(there)
    faults.requests.clear()
    assert run(resume) == 0
    assert not {(method, key) for method, key in faults.requests if method in {"PUT", "POST", "DELETE"}}
    assert {name: info["ETag"] for name, info in s3.find("bucket/looked", detail=True).items()} == {
        name: info["ETag"] for name, info in before.items()
    }
    assert not staged_files()


def test_object_names_that_lead_outside_are_refused(s3, photos, capfd, monkeypatch):
    names = {"run.json": None, "../../../planted": None}
    monkeypatch.setattr(outputs, "listing", lambda _: names)
    assert run(["finetune", str(photos), "--out", "s3://bucket/shared", "--resume"]) == 2
    assert "which leads outside of it" in capfd.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--out", "https://host/labels.csv"], 2, "https:// is read-only"),
        (["--out", "s3://nobody/labels.csv"], 4, "s3://nobody does not exist"),
        (["--out", "s3://bucket/labels"], 2, "expected a name ending in"),
        (["--out", "s3://bucket/run/labels.csv"], 2, "is inside the run"),
    ],
)
def test_invalid_outputs_are_reported_first(remote_run, photos, arguments, code, message, capfd):
    assert run(["predict", remote_run, str(photos), *arguments]) == code
    assert message in capfd.readouterr().err.replace("\n", " ")


def test_cache_at_a_url_is_refused(monkeypatch, photos, capfd):
    assert run(["cache-features", str(photos), "--cache", "s3://bucket/cache"]) == 2
    assert "memory-mapped" in capfd.readouterr().err.replace("\n", " ")
    monkeypatch.setenv("TLCLI_CACHE", "s3://bucket/cache")
    assert run(["cache", "list"]) == 2


def test_second_writer_is_refused(s3, report):
    url = parse_location("s3://bucket/both.csv")
    with published(url, Target(option="--out"), report) as path:
        with (
            pytest.raises(MachineError, match="is locked"),
            published(url, Target(option="--out"), report),
        ):
            pass
        path.write_bytes(b"first")
    assert s3.cat("bucket/both.csv") == b"first"
