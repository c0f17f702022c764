"""Two processes that torchrun starts here train one run: the same as one process does, though one of them is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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

MORTAL = """
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
"""tlcli, with a checkpoint after each step, whose second process is killed after the second epoch."""


def torchrun(*arguments):
    """Exit code, standard output, and what tlcli, not torchrun, said."""
    done = subprocess.run([*TORCHRUN, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout, [line for line in done.stderr.splitlines() if "torch/distributed" not in line]


def epochs(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(photos, tmp_path_factory):
    """What one process trains."""
    root = tmp_path_factory.mktemp("alone")
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
def together(photos, tmp_path_factory):
    """What two processes train; what they printed, and said."""
    root = tmp_path_factory.mktemp("together")
    paths = (photos, "--out", root / "run", "--cache", root / "cache")
    code, out, said = torchrun("-m", "tlcli", "finetune", *paths, *OPTIONS)
    assert code == 0, said
    return root, json.loads(out), said


def test_two_processes_get_what_one_gets(together, alone):
    root, result, said = together
    assert result["images"] == json.loads((alone / "run.json").read_text())["images"]
    assert result["processes"] == 2
    for mine, theirs in zip(epochs(root / "run"), epochs(alone), strict=True):
        for name in ("train_loss", "validation_loss", "validation_accuracy", "pictures"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4)
    mine, theirs = (pq.read_table(run / "predictions.parquet").to_pydict() for run in (root / "run", alone))
    assert mine["path"] == theirs["path"], "each validation image once"
    assert mine["predicted"] == theirs["predicted"]
    assert sum(line.startswith("  epoch") for line in said) == EPOCHS, "only one process speaks"


def test_each_feature_is_computed_by_one_of_them(together):
    root, result, _ = together
    tables = [pa.ipc.open_file(part).read_all() for part in (root / "cache" / result["cache"]).glob("part-*.arrow")]
    digests = [digest for table in tables for digest in table["digest"].to_pylist()]
    assert len(digests) == len(set(digests)) == result["images"]["train"] + result["images"]["validation"]
    assert len(tables) >= 2, "both wrote some"


def test_a_killed_process_costs_nothing(photos, together, tmp_path):
    root, _, _ = together
    mortal = tmp_path / "mortal.py"
    mortal.write_text(MORTAL)
    paths = (photos, "--out", tmp_path / "run", "--cache", root / "cache")
    code, _, said = torchrun("--max-restarts", 1, mortal, "finetune", *paths, *OPTIONS)
    assert code == 0, said
    assert "Going on from a checkpoint: epoch 3, step 0" in said
    assert (tmp_path / "run/model.safetensors").read_bytes() == (root / "run/model.safetensors").read_bytes()
    same = ("epoch", "train_loss", "validation_loss", "pictures")
    assert [[line[name] for name in same] for line in epochs(tmp_path / "run")] == [
        [line[name] for name in same] for line in epochs(root / "run")
    ]


def test_what_all_find_wrong_is_said_once(tmp_path):
    code, _, said = torchrun("-m", "tlcli", "finetune", tmp_path / "nowhere")
    assert code == 1, "torchrun's own"
    assert sum("does not exist" in line for line in said) == 1


def test_other_commands_refuse_to_be_started_twice(tmp_path):
    torchrun_says = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tlcli", "predict", tmp_path, tmp_path],
        env=os.environ | torchrun_says,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "predict was started 2 times" in done.stderr
