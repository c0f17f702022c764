"""Trackers in offline or local mode, read back with their libraries' own readers, and their effect on a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlcli.commands.finetune import finetune
from tlcli.errors import MachineError, UsageError
from tlcli.runs.run import load_run
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, TrainingSettings
from tlcli.storage.files import sha256_file
from tlcli.storage.urls import Url
from tlcli.tracking import tracking
from tlcli.tracking.tracker import ARTIFACTS, curve_points
from tlcli.tracking.tracking import STATE_FILE, Tracking, open_tracker

pytest.importorskip("tensorboard")
pytest.importorskip("mlflow")
wandb = pytest.importorskip("wandb")
# MLflow's database library warns of what MLflow does.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

TRACKERS = ("tensorboard", "mlflow", "wandb")
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


def local(folder):
    """Environment variables that make the libraries write everything into `folder`."""
    wandb = {f"WANDB_{kind}DIR": str(folder / "wandb") for kind in ("", "CACHE_", "DATA_", "CONFIG_")}
    (folder / "wandb").mkdir()
    return wandb | {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}


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


def read_tensorboard(folder, name):
    """The points of each curve as (step, value), the hyperparameters, and the text."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    events = EventAccumulator(str(folder / "runs/tensorboard" / name)).Reload()
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    about = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = plugin_data_pb2.HParamsPluginData.FromString(about).session_start_info
    text = events.Tensors("run/text_summary")[0].tensor_proto.string_val[0].decode()
    return curves, {key: getattr(value, value.WhichOneof("kind")) for key, value in started.hparams.items()}, text


def read_mlflow(folder):
    """The points of each curve of the only run, the run, and the folder of its artifacts."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs(["0"])
    curves = {
        name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    return curves, run, Path(run.info.artifact_uri)


def read_wandb(file):
    """The records of an offline file, by type, as `wandb leet inspect` reads them."""
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    records = {}
    for line in done.stdout.splitlines():
        record = json.loads(line)
        records.setdefault(record["type"], []).append(record.get(record["type"]))
    return records


def points_of(run):
    """The expected points of each curve: (line of metrics.jsonl, value)."""
    curves = {}
    for step, line in enumerate((run / "metrics.jsonl").read_text().splitlines(), 1):
        for name, value in curve_points(json.loads(line)).items():
            curves.setdefault(name, []).append((step, pytest.approx(value)))
    return curves


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


def tail_settings(photos, **changes):
    """Settings to train all layers of LeNet-5 for four epochs."""
    return FinetuneSettings(
        data=photos,
        out=Path("runs/tail"),
        network=NetworkSettings(backbone="lenet5", weights="none", freeze="none"),
        training=TrainingSettings(epochs=4),
        compute=ComputeSettings(workers=1, engine="torch"),  # without an export
        cache=CacheSettings(enabled=False),
        **changes,
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory that all libraries write to."""
    monkeypatch.chdir(tmp_path)
    for name, value in local(tmp_path).items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    wandb.teardown()  # otherwise it keeps the environment


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


def test_unreachable_server_gives_a_warning_without_its_password(here, photos, trained, report, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    finetune(
        FinetuneSettings(
            data=photos,
            out=Path("run"),
            network=NetworkSettings(size=64),
            cache=CacheSettings(directory=trained.cache),
            track=("mlflow", "wandb"),
        ),
        report,
    )
    assert load_run(Path("run")).info["validation"] == trained.info["validation"]
    about_mlflow, about_wandb = report.warnings
    assert about_mlflow.startswith("mlflow failed and was disabled; training continues.")
    assert "secret" not in about_mlflow
    assert "wandb login" in about_wandb


def test_curves_of_layers_are_those_of_the_run(here, photos):
    finetune(tail_settings(photos, track=("tensorboard",)))
    curves, settings, _ = read_tensorboard(here, "tail")
    assert points_of(here / "runs/tail").items() <= curves.items()
    assert settings["backbone"] == "lenet5"


class Failing:
    """A tracker whose disk is full at the second line; it can resume its run."""

    def __init__(self):
        self.steps = []
        self.full_at = 2

    def start(self, out, settings, known):
        return known or "new", "here"

    def line(self, step, values):
        if step == self.full_at:
            raise OSError(28, "No space left on device")
        self.steps.append(step)


def opened(report):
    trackers = Tracking(report)
    trackers.open(["mlflow"])
    return trackers


def test_failed_tracker_catches_up_when_the_run_is_resumed(tmp_path, report, monkeypatch):
    failing = Failing()
    monkeypatch.setattr(tracking, "open_tracker", lambda _: failing)
    lines = [{"epoch": number, "train_loss": 1 / number} for number in (1, 2, 3)]
    first = opened(report)
    first.start(tmp_path / "run", {}, tmp_path, resume=False)
    first.lines(lines[:1])
    first.lines(lines[:2])
    first.lines(lines)
    assert failing.steps == [1]
    assert len(report.warnings) == 1
    assert "No space left" in report.warnings[0]

    failing.full_at = None
    again = opened(report)
    again.start(tmp_path / "run", {}, tmp_path, resume=True)
    again.lines(lines)
    assert failing.steps == [1, 2, 3]

    (tmp_path / STATE_FILE).write_text("{}")
    opened(report).start(tmp_path / "run", {}, tmp_path, resume=True)
    assert "start new runs" in report.warnings[-1]


def test_finished_tracker_is_not_stopped_by_a_later_error(trained, tmp_path, report, monkeypatch):
    calls = []

    class Recording(Failing):
        def finish(self, *_):
            calls.append("finish")

        def stop(self):
            calls.append("stop")

    monkeypatch.setattr(tracking, "open_tracker", lambda _: Recording())

    def upload_that_fails(finished):
        with opened(report) as trackers:
            trackers.start(tmp_path / "run", {}, tmp_path, resume=False)
            if finished:
                trackers.finish(trained.run, trained.info, [])
            raise OSError

    for finished in (True, False):
        with pytest.raises(OSError):
            upload_that_fails(finished)
    assert calls == ["finish", "stop"]


def test_missing_library_is_reported_before_any_work(here, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "tlcli.tracking.mlflow", raising=False)
    with pytest.raises(MachineError, match=r"pip install 'tlcli\[mlflow\]'"):
        finetune(tail_settings(photos, track=("mlflow",)))
    assert not (here / "runs").exists()


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


@pytest.mark.parametrize(("track", "message"), [(("neptune",), "expected one of"), (("wandb", "wandb"), "given twice")])
def test_invalid_trackers_are_refused(track, message, photos):
    with pytest.raises(UsageError, match=message):
        tail_settings(photos, track=track)
