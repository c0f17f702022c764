"""Measure several processes on one machine: one process, two shards, two processes of torchrun, two Ray workers.

usage: python benchmarks/scale.py DATA [ROUNDS]      (default: 1; DATA has train and validation)
All of them share the cores of one process, so none can be faster than it, except by chance: the difference is the cost
of sharing the work. Each way also runs on a few images, to measure its startup. The ways are measured alternately.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from measure import TLCLI, machine, table

from tlcli.datasets.dataset import open_dataset
from tlcli.processes import cores

FEW = 60
"""Number of images, half of them for training, that take almost no time."""
TAIL = ("--freeze", "blocks.5.0", "--augment", "none", "--epochs", "3", "--precision", "fp32")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "tlcli"]
CLUSTER = ("--cluster", "auto", "--cores", str(max(1, cores() // 2)), "--part-size", "250")


def start(command, pinned=None):
    """Start a command, optionally on some cores only."""
    taskset = ["taskset", "-c", pinned] if pinned else []
    return subprocess.Popen([*taskset, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results(*processes):
    """Wait for processes, and return the JSON that they printed."""
    outputs = [process.communicate() for process in processes]
    if failed := [errors for process, (_, errors) in zip(processes, outputs, strict=True) if process.returncode]:
        sys.exit(failed[0])
    return [json.loads(out) for out, _ in outputs]


def alone(command, place):
    """Run one process."""
    results(start([*TLCLI, *command(place, "")]))


def shards(command, place):
    """Run two processes at the same time, each with half of the images and half of the cores."""
    own = sorted(os.sched_getaffinity(0))
    halves = own[: len(own) // 2], own[len(own) // 2 :]
    results(
        *(
            start([*TLCLI, *command(place, f"-{number}"), "--shard", f"{number}/2"], ",".join(map(str, half)))
            for number, half in enumerate(halves, 1)
        )
    )


def cluster(command, place):
    """Run two Ray workers."""
    results(start([*TLCLI, *command(place, "-parts"), *CLUSTER]))


def cache_features(data, place, name):
    """Return the command; all processes share one cache."""
    del name
    return ["cache-features", data, "--cache", place / "cache", "--json"]


def predict(run, data, place, name):
    """Return the command; each process writes its own file, or a folder of parts."""
    out = f"rows{name}" if name == "-parts" else f"rows{name}.parquet"
    return ["predict", run, data, "--out", place / out, "--json"]


def seconds(way, command):
    """Measure one way to run a command, in an empty folder."""
    with tempfile.TemporaryDirectory() as place:
        began = time.monotonic()
        way(command, Path(place))
        return time.monotonic() - began


def print_comparison(title, ways, many, few, command, rounds):
    """Print a table of the ways to run a command on many images and on few."""
    whole, startup = ({name: [] for name in ways} for _ in range(2))
    for _ in range(rounds):
        for name, way in ways.items():
            startup[name].append(seconds(way, partial(command, few[0])))
            whole[name].append(seconds(way, partial(command, many[0])))
    rates = {}
    rows = []
    for name in ways:
        on_many, on_few = statistics.median(whole[name]), statistics.median(startup[name])
        rates[name] = (many[1] - few[1]) / (on_many - on_few)
        first = next(iter(rates.values()))
        rows.append([name, f"{on_many:.1f} s", f"{on_few:.1f} s", f"{rates[name]:.0f}", f"{rates[name] / first:.2f}"])
    print(f"\n{title}\n")
    print(table(["", "total", f"with {few[1]} images", "images per second in between", "times one process"], rows))


def training(data, rounds):
    """Compare a training epoch of a tail from the cache in one process and in two."""
    found = {"one process": [], "torchrun, two processes": []}
    wholes = {name: [] for name in found}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        options = ["finetune", data, *TAIL, "--cache", place / "cache", "--json"]
        results(start([*TLCLI, *options, "--out", place / "first"]))  # fills the cache
        for number in range(rounds):
            for name, command in zip(found, (TLCLI, TORCHRUN), strict=True):
                out = place / f"run-{number}-{len(command)}"
                began = time.monotonic()
                results(start([*command, *options, "--out", out]))
                wholes[name].append(time.monotonic() - began)
                lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
                found[name] += [line["pictures"] / line["seconds"] for line in lines[1:]]
    rates = {name: statistics.median(values) for name, values in found.items()}
    first = rates["one process"]
    print(f"\nTraining a tail from the cache (`finetune {' '.join(TAIL)}`, the epochs after the first)\n")
    rows = [
        [name, f"{statistics.median(wholes[name]):.1f} s", f"{rate:.0f}", f"{rate / first:.2f}"]
        for name, rate in rates.items()
    ]
    print(table(["", "whole process", "images per second", "times one process"], rows))


def few_of(data, folder):
    """Make a folder with links to a few images of each split; return it and their number."""
    dataset = open_dataset(data)
    for split in ("train", "validation"):
        samples = [sample for sample in dataset.samples if sample.split == split]
        for sample in samples[:: max(1, len(samples) // (FEW // 2))][: FEW // 2]:
            link = folder / split / dataset.classes[sample.label] / Path(sample.path).name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(sample.path).absolute())
    return folder, sum(path.is_symlink() for path in folder.rglob("*"))


def main():
    data, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    print(machine("ray"))
    ways = {"one process": alone, "two shards": shards, "two Ray workers": cluster}
    with tempfile.TemporaryDirectory() as folder:
        many = data, len(open_dataset(data).samples)
        few = few_of(data, Path(folder) / "few")
        run = Path(folder) / "run"
        results(start([*TLCLI, "finetune", few[0], "--cache", Path(folder) / "cache", "--out", run, "--json"]))
        print_comparison("`cache-features`, cold", ways, many, few, cache_features, rounds)
        print_comparison("`predict`, to Parquet", ways, many, few, partial(predict, run), rounds)
    training(data, rounds)


if __name__ == "__main__":
    main()
