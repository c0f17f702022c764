"""Distributed training: processes find each other, exchange values, and share batches."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from torch.distributed import HashStore

from tlcli import processes
from tlcli.features.extraction import Extraction
from tlcli.features.shared_extraction import _differences
from tlcli.processes import ALONE, ProcessRank, launched, share
from tlcli.progress import Silent
from tlcli.runs.directory import new_run, unfinished_job, unfinished_name

PAIR = """
import json, sys
import torch
from torch import nn
from tlcli import processes
from tlcli.progress import Silent
from tlcli.training.tail.loop import TailTrainer, TrainingData
from tlcli.training.tail.recipe import Recipe

class Lossy:
    "Returns the rows; in the second epoch process 1 has lost all of its images of the first batch."
    waited = 0.0
    def __init__(self, inputs):
        self.inputs = inputs
    def load(self, batches, epoch):
        for number, batch in enumerate(batches):
            rows = [] if (epoch, number, processes.rank()) == (1, 0, 1) else list(batch)
            yield torch.tensor(rows, dtype=torch.int64), self.inputs[rows]

torch.manual_seed(0)
tail = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(4, 3))
inputs, labels = torch.randn(21, 2, 6, 6), torch.arange(21) % 3
recipe = Recipe(epochs=3, batch_size=6, learning_rate=0.01, weight_decay=0.0, layer_decay=1.0, label_smoothing=0.0,
                warmup=0.1, clip=1.0, patience=None, seed=0, precision="fp32", fixed_statistics=False)
warnings = []
with processes.process_group(Silent(), cuda=False):
    data = TrainingData(train=Lossy(inputs), labels=labels, validation=Lossy(inputs[:5]),
                        validation_labels=labels[:5].numpy(), log_prior=None)
    trainer = TailTrainer(tail, tail, data, recipe=recipe, device=torch.device("cpu"), warn=warnings.append)
    evaluation, _ = trainer.fit(save=lambda: None, on_step=lambda _: None, on_epoch=lambda _: None)
    state = [float(value.double().sum()) for value in tail.state_dict().values()]
    states = processes.gather([state, trainer.state.lines, evaluation.logits.tolist()])
    first = processes.from_first(lambda: processes.rank())
    if processes.rank() == 0:
        print(json.dumps({"states": states, "warnings": warnings, "first": first}))
"""


def run_together(script, count=2):
    """Run a script in processes that find each other through their environment; return what each prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_WORLD_SIZE": "2",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=os.environ | environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    outputs = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * count, outputs
    return [out for out, _ in outputs]


@pytest.mark.slow
def test_batchnorm_and_lost_images_leave_all_processes_equal():
    printed, nothing = run_together(PAIR)
    assert nothing == ""
    result = json.loads(printed)
    one, other = result["states"]
    assert one[0] == other[0], "weights, and the running statistics of process 0"
    assert one[2] == other[2], "validation logits"
    assert len(one[2]) == 5, "each image is evaluated once"
    assert [line["train_loss"] for line in one[1]] == [line["train_loss"] for line in other[1]]
    # 21 in batches of 6: the last three join the batch before, so that no process has a single image.
    assert [line["pictures"] for line in one[1]] == [21, 18, 21]
    assert "computed from each process's part" in result["warnings"][0]
    assert result["first"] == 0


def test_processes_meet_despite_stale_keys_in_the_store():
    store, met = HashStore(), {}
    store.set("here/1", "before a restart")
    store.set("met/0", "old")
    store.set("all", "gone before")

    def meet(rank):
        met[rank] = processes._rendezvous(store, ProcessRank(rank=rank, size=2, local_rank=rank, job="", restarts=0))

    threads = [threading.Thread(target=meet, args=(rank,)) for rank in (0, 1)]
    threads[0].start()
    threads[0].join(0.2)
    assert not met, "a process must not continue with ended ones"
    threads[1].start()
    for thread in threads:
        thread.join(20)
    assert met[0] == met[1]


def test_images_that_differ_between_machines_are_named():
    first = Extraction(digests=[b"a", b"b", b"c", None], failures={3: "truncated"})
    other = Extraction(digests=[b"a", b"x", None, b"d"], failures={2: "cannot be read"})
    assert _differences(first, first) == {}
    assert _differences(other, first) == {1: "differs on another machine", 2: "cannot be read"}


def test_single_process_needs_no_communication(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert launched() == ALONE
    with processes.process_group(Silent(), cuda=False):
        assert (processes.rank(), processes.size(), processes.local_rank()) == (0, 1, None)
        assert processes.gather("x") == ["x"]
        assert processes.from_first(lambda: "y") == "y"
        assert processes.total([1, 2.5]) == [1, 2.5]
        assert processes.in_parts([1, 2], sum) == [3]


@pytest.mark.parametrize("count", [0, 1, 5, 12, 13])
def test_shares_are_balanced_and_cover_all_in_order(monkeypatch, count):
    parts = []
    for rank in range(5):
        monkeypatch.setattr(processes, "_current", ProcessRank(rank=rank, size=5, local_rank=rank, job="", restarts=0))
        parts.append(share(range(count)))
    assert [item for part in parts for item in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_unfinished_run_stores_the_job_that_started_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert unfinished_name(tmp_path / "photos", "job 7") is None
    with contextlib.suppress(KeyboardInterrupt), new_run(Path("runs/photos"), overwrite=False, job="job 7") as run:
        (run / "checkpoint").mkdir()
        raise KeyboardInterrupt
    assert unfinished_job(Path("runs/photos")) == "job 7"
    assert unfinished_name(tmp_path / "photos", "job 7").name == "photos"
    assert unfinished_name(tmp_path / "photos", "job 8") is None
