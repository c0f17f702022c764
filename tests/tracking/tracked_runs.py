"""Settings of tracked runs, and trackers' files read back with their libraries' own readers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, TrainingSettings
from tlcli.tracking.tracker import curve_points

TRACKERS = ("tensorboard", "mlflow", "wandb")


def local(folder):
    """Environment variables that make the libraries write everything into `folder`."""
    wandb = {f"WANDB_{kind}DIR": str(folder / "wandb") for kind in ("", "CACHE_", "DATA_", "CONFIG_")}
    (folder / "wandb").mkdir()
    return wandb | {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}


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
