"""Trackers that fail, are missing, or are unknown, and their effect on a run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tracked_runs import TRACKERS, tail_settings

from tlcli.commands.finetune import finetune
from tlcli.errors import MachineError, UsageError
from tlcli.runs.run import load_run
from tlcli.settings import CacheSettings, FinetuneSettings, NetworkSettings
from tlcli.tracking import tracking
from tlcli.tracking.tracking import STATE_FILE, Tracking

for library in TRACKERS:
    pytest.importorskip(library)
# MLflow's database library warns of what MLflow does.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


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


@pytest.mark.parametrize(("track", "message"), [(("neptune",), "expected one of"), (("wandb", "wandb"), "given twice")])
def test_invalid_trackers_are_refused(track, message, photos):
    with pytest.raises(UsageError, match=message):
        tail_settings(photos, track=track)
