"""Runs and outputs at URLs: written whole, never over something else by mistake, and read back."""

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
from tlcli.storage.urls import parse_location


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache of its own, where outputs wait."""
    monkeypatch.setenv("TLCLI_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(connection, "PAUSE", 0.01)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def remote_run(trained, s3):
    s3.put(str(trained.run), "bucket/run", recursive=True)
    return "s3://bucket/run"


def waiting(home):
    return [path for path in (home / "outputs").rglob("*") if path.is_file()]


def rows_of(content):
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_a_run_is_written_read_and_replaced(s3, remote_photos, trained, home, faults, capfd):
    train = ["finetune", remote_photos, "--size", "64", "--out", "s3://bucket/runs/a", "--cache", str(trained.cache)]
    assert run([*train, "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["run"] == "s3://bucket/runs/a"
    assert {path.removeprefix("bucket/runs/a/") for path in s3.find("bucket/runs/a")} == {"run.json", *said["files"]}
    puts = [key for method, key in faults.requests if method == "PUT"]
    assert puts[-1] == "bucket/runs/a/run.json"
    assert str(home) not in s3.cat("bucket/runs/a/run.json").decode()
    assert not waiting(home)

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
    assert not s3.exists("bucket/runs/a/model.onnx"), "what the new run hasn't is gone"


def test_a_run_is_fetched_once(remote_run, trained, s3, photos, faults, home, capfd):
    arguments = ["predict", remote_run, str(photos / "disc"), "--json"]
    assert run(arguments) == 0
    expected = json.loads(capfd.readouterr().out)["rows"]
    faults.requests.clear()
    assert run(arguments) == 0
    assert json.loads(capfd.readouterr().out)["rows"] == expected
    assert [key for method, key in faults.requests if method == "GET"] == ["bucket/run/run.json"]

    kept = next((home / "runs").rglob("model.onnx"))
    kept.write_bytes(b"damaged")
    assert run(arguments) == 4
    assert "s3://bucket/run/model.onnx was changed" in json.loads(capfd.readouterr().out)["error"]["message"]
    assert run(arguments) == 0, "it is fetched again"
    capfd.readouterr()
    kept = next((home / "runs").rglob("model.onnx"))
    kept.unlink()
    s3.rm("bucket/run/splits.parquet")
    assert [run(arguments), run(arguments)] == [4, 4], "neither what was fetched nor what is there is whole"
    s3.put(str(trained.run / "splits.parquet"), "bucket/run/splits.parquet")
    assert run(arguments) == 0
    assert run(["layers", "s3://bucket/photos"]) == 4
    assert "it is not a tlcli run" in capfd.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows(trained, remote_photos, s3, home, suffix, capfd, tmp_path):
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
    assert not waiting(home)


def test_rows_that_could_not_be_uploaded_are_kept(trained, remote_photos, s3, faults, home, capfd):
    arguments = ["predict", str(trained.run), f"{remote_photos}/disc", "--out", "s3://bucket/kept.csv"]
    faults.written["bucket/kept.csv"] = 5
    assert run(arguments) == 5
    said = capfd.readouterr().err.replace("\n", " ")
    assert "s3://bucket/kept.csv cannot be reached" in said
    assert "--resume" in said
    assert len(waiting(home)) == 1
    faults.requests.clear()
    assert run([*arguments, "--resume"]) == 0
    assert not [key for _, key in faults.requests if key.endswith(".jpg")], "nothing is predicted again"
    assert len(rows_of(s3.cat("bucket/kept.csv"))) == 15
    faults.written["bucket/kept.csv"] = 2
    assert run([*arguments, "--overwrite"]) == 0, "two failures may pass"
    assert run([*arguments[:-1], "s3://bucket/fresh.csv", "--resume"]) == 0
    assert "nothing to resume" in capfd.readouterr().err


def test_data_sets_and_features(trained, remote_photos, s3, capfd, home):
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
    assert not waiting(home)


def test_what_was_fetched_to_be_looked_at_is_never_uploaded(remote_photos, s3, capfd, home, faults, photos, tmp_path):
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
    assert not waiting(home)


def test_names_in_a_bucket_lead_nowhere_else(s3, photos, home, capfd, monkeypatch):
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
def test_what_cannot_be_written_is_said_first(remote_run, photos, arguments, code, message, home, capfd):
    assert run(["predict", remote_run, str(photos), *arguments]) == code
    assert message in capfd.readouterr().err.replace("\n", " ")


def test_caches_are_of_this_machine(monkeypatch, photos, capfd):
    assert run(["cache-features", str(photos), "--cache", "s3://bucket/cache"]) == 2
    assert "memory-mapped" in capfd.readouterr().err.replace("\n", " ")
    monkeypatch.setenv("TLCLI_CACHE", "s3://bucket/cache")
    assert run(["cache", "list"]) == 2


def test_two_do_not_write_the_same(s3, report):
    url = parse_location("s3://bucket/both.csv")
    with published(url, Target(option="--out"), report) as path:
        with (
            pytest.raises(MachineError, match="is locked"),
            published(url, Target(option="--out"), report),
        ):
            pass
        path.write_bytes(b"first")
    assert s3.cat("bucket/both.csv") == b"first"
