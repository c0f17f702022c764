"""Trackers in offline or local mode have what the run has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tracked_runs import TRACKERS, local, points_of, read_mlflow, read_tensorboard, read_wandb, tail_settings

from tlcli.commands.finetune import finetune
from tlcli.errors import UsageError
from tlcli.runs.run import load_run
from tlcli.storage.files import sha256_file
from tlcli.storage.urls import Url
from tlcli.tracking.tracker import ARTIFACTS
from tlcli.tracking.tracking import open_tracker

for library in TRACKERS:
    pytest.importorskip(library)
# MLflow's database library warns of what MLflow does.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

WATCHED = """
import sys
def watch(event, arguments):
    there = event in {"socket.connect", "socket.getaddrinfo"}
    if there and not isinstance(arguments[1], (str, bytes)):  # a Unix domain socket
        print("NETWORK", event, arguments, file=sys.stderr, flush=True)
sys.addaudithook(watch)
from tlcli.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def head(photos, trained, tmp_path_factory):
    """A head trained by the command with all trackers: the working directory and the finished process."""
    folder = tmp_path_factory.mktemp("head")
    (folder / "home").mkdir()
    # Libraries that detect a test run collect nothing anyway.
    known = {name: value for name, value in os.environ.items() if name != "CI" and "PYTEST" not in name}
    command = ["finetune", photos, "--size", "64", "--out", "runs/here", "--cache", trained.cache, "--json"]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *map(str, command), *(word for name in TRACKERS for word in ("--track", name))],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=known | local(folder) | {"HOME": str(folder / "home"), "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.mark.slow
def test_nothing_is_sent_over_the_network_and_standard_output_has_only_results(head):
    folder, done = head
    assert "NETWORK" not in done.stderr
    assert not list((folder / "home").rglob("*"))  # where libraries store what they collect
    assert json.loads(done.stdout)["run"] == "runs/here"
    assert [line.split(":")[0] for line in done.stderr.splitlines() if line.startswith("Tracking")] == [
        f"Tracking  {name}" for name in TRACKERS
    ]
    assert "warning" not in done.stderr.lower()
    load_run(folder / "runs/here")  # refuses files that trackers might have added


@pytest.mark.slow
def test_tensorboard_has_curves_settings_and_metrics(head):
    folder, _ = head
    run = load_run(folder / "runs/here")
    curves, settings, text = read_tensorboard(folder, "here")
    assert points_of(run.directory).items() <= curves.items()
    assert curves["validation/accuracy"][0][1] == pytest.approx(run.info["validation"]["accuracy"])
    assert settings["size"] == 64
    assert settings["run/freeze/layer"] == run.layer
    assert all(f"here/{name}" in text for name in ARTIFACTS)


@pytest.mark.slow
def test_mlflow_has_curves_settings_metrics_and_files(head):
    folder, _ = head
    run = load_run(folder / "runs/here")
    curves, found, artifacts = read_mlflow(folder)
    assert points_of(run.directory).items() <= curves.items()
    assert curves["validation/accuracy"][0][1] == pytest.approx(run.info["validation"]["accuracy"])
    assert found.data.params["size"] == "64"
    assert found.data.params["run/backbone"] == run.info["backbone"]
    assert (found.info.run_name, found.info.status) == ("here", "FINISHED")
    assert {path.name for path in artifacts.iterdir()} == set(ARTIFACTS)
    assert all(sha256_file(artifacts / name) == sha256_file(run.directory / name) for name in ARTIFACTS)


@pytest.mark.slow
def test_wandb_has_curves_settings_metrics_and_files(head):
    folder, _ = head
    run = load_run(folder / "runs/here")
    (file,) = (folder / "wandb").glob("wandb/offline-run-*/run-*.wandb")
    records = read_wandb(file)
    curves = {}
    for record in records["history"]:
        for name, value in record["item"].items():
            if not name.startswith("_"):
                curves.setdefault(name, []).append((record["item"]["_step"], value))
    assert curves == points_of(run.directory)
    text = json.dumps(records)
    assert "validation/accuracy" in text
    assert "run/backbone" in text
    assert all(f'"{name}"' in text for name in ARTIFACTS)


class Interrupt(BaseException):
    """Stands in for Ctrl-C."""


@pytest.mark.slow
def test_resumed_run_continues_the_same_tracker_runs(here, photos, report, monkeypatch):
    settings = tail_settings(photos, track=TRACKERS, resume=True)
    note = report.note

    def interrupt(text):
        if text.startswith("  epoch  3"):
            raise Interrupt
        note(text)

    report.note = interrupt
    with pytest.raises(Interrupt):
        finetune(settings, report)
    assert read_mlflow(here)[1].info.status == "KILLED"
    report.note = note
    finetune(settings, report)
    assert not [text for text in report.warnings if "failed and was disabled" in text]

    run = load_run(here / "runs/tail")
    curves, found, _ = read_mlflow(here)
    assert points_of(run.directory).items() <= curves.items()
    assert len(curves["epochs/train_loss"]) == 4
    assert found.info.status == "FINISHED"
    curves, _, _ = read_tensorboard(here, "tail")
    assert points_of(run.directory).items() <= curves.items()
    files = sorted((here / "wandb").glob("wandb/offline-run-*/run-*.wandb"))
    steps = [[record["item"]["_step"] for record in read_wandb(file)["history"]] for file in files]
    assert steps == [[1, 2], [3, 4]]
    assert len({file.name for file in files}) == 1  # uploaded in turn, they form one run


def test_curves_of_layers_are_those_of_the_run(here, photos):
    finetune(tail_settings(photos, track=("tensorboard",)))
    curves, settings, _ = read_tensorboard(here, "tail")
    assert points_of(here / "runs/tail").items() <= curves.items()
    assert settings["backbone"] == "lenet5"


def test_each_run_has_its_own_tensorboard_folder(here):
    tracker = open_tracker("tensorboard")
    for out, name in ((Url("s3://bucket/street"), "street"), (Path("runs/street"), "street-2")):
        assert tracker.start(out, {}, None)[0] == name
        tracker.stop()
        assert list((here / "runs/tensorboard" / name).iterdir())
    assert tracker.start(Path("runs/street"), {}, "street")[0] == "street"
    tracker.stop()
    with pytest.raises(UsageError, match="would contain its own event files"):
        tracker.start(Path("runs/tensorboard"), {}, None)
