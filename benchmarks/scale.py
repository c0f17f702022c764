"""What several processes bring on one machine: alone, as two shards, as two of torchrun, as two Ray workers.

usage: python benchmarks/scale.py DATA [ROUNDS]      (1 unless given; DATA has train and validation)
All of them share the cores that one process has, so nothing is faster than it but by accident: what is lost is what
sharing the work costs. Each way also runs on a few images, for what it costs before it gets to work. Ways take turns.
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
"""Images, half of them to train on, that take next to no time."""
TAIL = ("--freeze", "blocks.5.0", "--augment", "none", "--epochs", "3", "--precision", "fp32")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "tlcli"]
CLUSTER = ("--cluster", "auto", "--cores", str(max(1, cores() // 2)), "--part-size", "250")


def started(command, pinned=None):
    """A command under way, on some cores only."""
    taskset = ["taskset", "-c", pinned] if pinned else []
    return subprocess.Popen([*taskset, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(*processes):
    """What they printed as JSON."""
    said = [process.communicate() for process in processes]
    if failed := [errors for process, (_, errors) in zip(processes, said, strict=True) if process.returncode]:
        sys.exit(failed[0])
    return [json.loads(out) for out, _ in said]


def alone(command, place):
    """One process."""
    finished(started([*TLCLI, *command(place, "")]))


def shards(command, place):
    """Two processes at the same time, each with half of the images and of the cores."""
    own = sorted(os.sched_getaffinity(0))
    halves = own[: len(own) // 2], own[len(own) // 2 :]
    finished(
        *(
            started([*TLCLI, *command(place, f"-{number}"), "--shard", f"{number}/2"], ",".join(map(str, half)))
            for number, half in enumerate(halves, 1)
        )
    )


def cluster(command, place):
    """Two workers of Ray."""
    finished(started([*TLCLI, *command(place, "-parts"), *CLUSTER]))


def cache_features(data, place, name):
    """Into one cache, whoever computes."""
    del name
    return ["cache-features", data, "--cache", place / "cache", "--json"]


def predict(run, data, place, name):
    """Into a file each, or a folder of parts."""
    out = f"rows{name}" if name == "-parts" else f"rows{name}.parquet"
    return ["predict", run, data, "--out", place / out, "--json"]


def seconds(way, command):
    """Of a way to do a command, in an empty folder."""
    with tempfile.TemporaryDirectory() as place:
        began = time.monotonic()
        way(command, Path(place))
        return time.monotonic() - began


def compared(title, ways, many, few, command, rounds):
    """A table of ways to do a command on many images and on few."""
    whole, start = ({name: [] for name in ways} for _ in range(2))
    for _ in range(rounds):
        for name, way in ways.items():
            start[name].append(seconds(way, partial(command, few[0])))
            whole[name].append(seconds(way, partial(command, many[0])))
    rates = {}
    rows = []
    for name in ways:
        at_all, at_least = statistics.median(whole[name]), statistics.median(start[name])
        rates[name] = (many[1] - few[1]) / (at_all - at_least)
        first = next(iter(rates.values()))
        rows.append([name, f"{at_all:.1f} s", f"{at_least:.1f} s", f"{rates[name]:.0f}", f"{rates[name] / first:.2f}"])
    print(f"\n{title}\n")
    print(table(["", "whole", f"with {few[1]} images", "images a second between", "times one process"], rows))


def training(data, rounds):
    """An epoch of a tail from the cache, by one process and by two."""
    found = {"one process": [], "torchrun, two processes": []}
    wholes = {name: [] for name in found}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        options = ["finetune", data, *TAIL, "--cache", place / "cache", "--json"]
        finished(started([*TLCLI, *options, "--out", place / "first"]))  # so that features are there
        for number in range(rounds):
            for name, command in zip(found, (TLCLI, TORCHRUN), strict=True):
                out = place / f"run-{number}-{len(command)}"
                began = time.monotonic()
                finished(started([*command, *options, "--out", out]))
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
    print(table(["", "whole process", "images a second", "times one process"], rows))


def few_of(data, folder):
    """A folder with links to a few images of each split, and how many."""
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
        finished(started([*TLCLI, "finetune", few[0], "--cache", Path(folder) / "cache", "--out", run, "--json"]))
        compared("`cache-features`, cold", ways, many, few, cache_features, rounds)
        compared("`predict`, to Parquet", ways, many, few, partial(predict, run), rounds)
    training(data, rounds)


if __name__ == "__main__":
    main()
