"""Train one run in two processes started by torchrun: it equals that of one process, even if one is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tlcli.commands.finetune import finetune
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, TrainingSettings
from tlcli.settings.augmentation import Augmentation

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]

NETWORK = NetworkSettings(backbone="lenet5", weights="none", freeze="1", seed=3)
COMPUTE = ComputeSettings(precision="fp32", batch_size=8, device="cpu")
EPOCHS = 4
OPTIONS = (
    *("--backbone", "lenet5", "--weights", "none", "--freeze", 1, "--seed", 3),
    *("--precision", "fp32", "--batch-size", 8, "--device", "cpu", "--epochs", EPOCHS),
    *("--augment", "none", "--json"),
)

KILLED_ONCE = """
import os, signal
from tlcli.cli.main import main
from tlcli.training.tail import checkpoints
from tlcli.training.tail import loop

checkpoints.EVERY, checkpoints.SHARE = 0.0, 1e9
end_epoch = loop.TailTrainer._end_epoch

def die_once(trainer, *rest):
    end_epoch(trainer, *rest)
    if trainer.state.epoch == 2 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)

loop.TailTrainer._end_epoch = die_once
main()
"""
"""tlcli with a checkpoint after each step; its second process is killed after the second epoch."""


def torchrun(*arguments):
    """Return exit code, standard output, and the lines of standard error without torchrun's own."""
    done = subprocess.run([*TORCHRUN, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout, [line for line in done.stderr.splitlines() if "torch/distributed" not in line]


def epochs(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def single(photos, tmp_path_factory):
    """A run trained by one process."""
    root = tmp_path_factory.mktemp("single")
    finetune(
        FinetuneSettings(
            data=photos,
            out=root / "run",
            network=NETWORK,
            compute=COMPUTE,
            training=TrainingSettings(epochs=EPOCHS),
            augmentation=Augmentation(),
            cache=CacheSettings(directory=root / "cache"),
        )
    )
    return root / "run"


@pytest.fixture(scope="module")
def distributed(photos, tmp_path_factory):
    """A folder with a run trained by two processes, the JSON they printed, and their messages."""
    root = tmp_path_factory.mktemp("distributed")
    paths = (photos, "--out", root / "run", "--cache", root / "cache")
    code, out, messages = torchrun("-m", "tlcli", "finetune", *paths, *OPTIONS)
    assert code == 0, messages
    return root, json.loads(out), messages


@pytest.mark.slow
def test_two_processes_train_the_same_as_one(distributed, single):
    root, result, messages = distributed
    assert result["images"] == json.loads((single / "run.json").read_text())["images"]
    assert result["processes"] == 2
    for mine, theirs in zip(epochs(root / "run"), epochs(single), strict=True):
        for name in ("train_loss", "validation_loss", "validation_accuracy", "pictures"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4)
    mine, theirs = (pq.read_table(run / "predictions.parquet").to_pydict() for run in (root / "run", single))
    assert mine["path"] == theirs["path"], "each validation image once"
    assert mine["predicted"] == theirs["predicted"]
    assert sum(line.startswith("  epoch") for line in messages) == EPOCHS, "only one process prints"


@pytest.mark.slow
def test_two_processes_agree_on_what_fits_into_a_budget(photos, single, tmp_path):
    """Both take part in the features that are computed to measure them."""
    paths = (photos, "--out", tmp_path / "run", "--cache", tmp_path / "cache")
    code, _, messages = torchrun("-m", "tlcli", "finetune", *paths, *OPTIONS, "--budget", "1h")
    assert code == 0, messages
    for mine, theirs in zip(epochs(tmp_path / "run"), epochs(single), strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)


@pytest.mark.slow
def test_each_feature_is_computed_once(distributed):
    root, result, _ = distributed
    tables = [pa.ipc.open_file(part).read_all() for part in (root / "cache" / result["cache"]).glob("part-*.arrow")]
    digests = [digest for table in tables for digest in table["digest"].to_pylist()]
    assert len(digests) == len(set(digests)) == result["images"]["train"] + result["images"]["validation"]
    assert len(tables) >= 2, "both processes wrote features"


@pytest.mark.slow
def test_training_survives_a_killed_process(photos, distributed, tmp_path):
    root, _, _ = distributed
    script = tmp_path / "killed_once.py"
    script.write_text(KILLED_ONCE)
    paths = (photos, "--out", tmp_path / "run", "--cache", root / "cache")
    code, _, messages = torchrun("--max-restarts", 1, script, "finetune", *paths, *OPTIONS)
    assert code == 0, messages
    assert "Resuming from a checkpoint: epoch 3, step 0" in messages
    assert (tmp_path / "run/model.safetensors").read_bytes() == (root / "run/model.safetensors").read_bytes()
    same = ("epoch", "train_loss", "validation_loss", "pictures")
    assert [[line[name] for name in same] for line in epochs(tmp_path / "run")] == [
        [line[name] for name in same] for line in epochs(root / "run")
    ]


@pytest.mark.slow
def test_errors_of_all_processes_are_printed_once(tmp_path):
    code, _, messages = torchrun("-m", "tlcli", "finetune", tmp_path / "nowhere")
    assert code == 1, "the exit code of torchrun"
    assert sum("does not exist" in line for line in messages) == 1


def test_other_commands_refuse_several_processes(tmp_path):
    environment = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tlcli", "predict", tmp_path, tmp_path],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "torchrun started 2 processes of predict" in done.stderr


@pytest.mark.slow
def test_processes_agree_on_what_they_choose(tmp_path):
    generator = np.random.default_rng(0)
    for label, left in (("left", 2), ("right", 84)):  # at the ends of wide images, which a center crop cuts off
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(30):
            pixels = generator.integers(60, 140, (32, 96, 3)).astype(np.uint8)
            pixels[8:20, left : left + 10] = 255
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{number}.png")
    paths = (tmp_path / "data", "--out", tmp_path / "run", "--cache", tmp_path / "cache")
    options = ("--fit", "auto", "--freeze", "18", "--size", 32, "--device", "cpu", "--engine", "torch", "--json")
    code, out, messages = torchrun("-m", "tlcli", "finetune", *paths, *options)
    assert code == 0, messages
    result = json.loads(out)
    assert result["choices"]["fit"]["chosen"] == result["preprocessing"]["fit"] == "squash"
    assert sum(line.startswith("Fit  ") for line in messages) >= 1
