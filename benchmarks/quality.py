"""Compare `--freeze auto` with `--freeze all`, and reported with true accuracy, on few images of each class and on all.

usage: python benchmarks/quality.py DATA...     each has train and test, and may have validation

Few images are drawn from train, a new subset for each seed, without validation images. Accuracies are those on the test
images. A subset has as many images of each class, so what is reported on it is compared with the mean accuracy of the
classes. "auto - all" is the mean paired difference. Features are kept in the default cache, or that of TLCLI_CACHE.
Environment: PER_CLASS=3,5,10,20,all SEEDS=3 FREEZE=all,auto select a part.
"""

import csv
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import machine, table

from tlcli.commands.finetune import finetune
from tlcli.datasets.dataset import open_dataset
from tlcli.settings import FinetuneSettings, NetworkSettings

PER_CLASS = os.environ.get("PER_CLASS", "3,5,10,20,all").split(",")
SEEDS = range(int(os.environ.get("SEEDS", "3")))
FREEZE = os.environ.get("FREEZE", "all,auto").split(",")


def write_subset(dataset, per_class, seed, file):
    """Write a table with some training images of each class, and the test images."""
    generator = np.random.default_rng(seed)
    by_class = {}
    for sample in dataset.samples:
        if sample.split in {None, "train"}:
            by_class.setdefault(sample.label, []).append(sample)
    kept = [sample for sample in dataset.samples if sample.split == "test"]
    for samples in by_class.values():
        kept += [samples[row] for row in generator.permutation(len(samples))[:per_class]]
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "label", "split"])
        for sample in kept:
            writer.writerow([Path(sample.path).resolve(), dataset.classes[sample.label], sample.split or "train"])


def measure(data, freeze, seed, run):
    """Return test accuracy, the mean over its classes, reported accuracy, ECE, seconds; and the kept layer."""
    started = time.monotonic()
    info = finetune(FinetuneSettings(data=data, out=run, network=NetworkSettings(freeze=freeze, seed=seed)))
    seconds = time.monotonic() - started
    test, validation = info["test"], info["validation"]
    figures = test["accuracy"], test["balanced_accuracy"], validation["accuracy"], test["ece"], seconds
    return figures, "head" if info["freeze"]["layer"] == info["freeze"]["of"] else str(info["freeze"]["layer"])


def spread(values):
    """Format a mean and its standard error."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.3f} ± {error:.3f}"


def rows_of(name, dataset, per_class, folder):
    """Yield the rows of the table for one number of images."""
    accuracies = {}
    for freeze in FREEZE:
        found, layers = [], []
        for seed in SEEDS:
            data = dataset.root
            if per_class != "all":
                data = folder / f"{name}-{per_class}-{seed}.csv"
                write_subset(dataset, int(per_class), seed, data)
            figures, layer = measure(data, freeze, seed, folder / f"{name}-{per_class}-{seed}-{freeze}")
            found.append(figures)
            layers.append(layer)
        test, balanced, reported, ece, seconds = np.array(found).T
        true = test if per_class == "all" else balanced
        accuracies[freeze] = test
        yield [
            *(name, per_class, freeze, spread(test), spread(balanced), spread(reported), spread(reported - true)),
            *(f"{ece.mean():.3f}", f"{np.median(seconds):.0f}", ", ".join(layers)),
        ]
    if {"all", "auto"} <= accuracies.keys():
        yield [name, per_class, "auto - all", spread(accuracies["auto"] - accuracies["all"]), *[""] * 6]


def main(folders):
    print(machine(), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for data in map(Path, folders):
            dataset = open_dataset(data)
            for per_class in PER_CLASS:
                for row in rows_of(data.name, dataset, per_class, Path(temporary)):
                    rows.append(row)
                    print(" | ".join(map(str, row)), flush=True)
    header = "data, images per class, freeze, test accuracy, mean over classes, reported, reported - true"
    print(table([*header.split(", "), "ECE", "seconds", "layer"], rows))


main(sys.argv[1:])
