"""Compare backbones by the test accuracy of the head on their frozen features, with 16 images per class and with all.

usage: python benchmarks/backbones.py FEATURES.parquet...   files of `cache-features --backbone NAME --export`
       python benchmarks/backbones.py --speed NAME...         features per second, of the network alone

All files of one dataset use the same subsets; ± is the standard error of the mean over three of them. The speed is that
of ONNX Runtime on random pixels. It is measured in CPU time, which depends less on what else the machine runs, and is
given for two cores.
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from measure import machine, table

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.datasets.splits import assign_folds
from tlcli.engines.exported_engine import ExportedRunner
from tlcli.engines.onnx_export import load_or_export_onnx
from tlcli.engines.onnx_session import OnnxSession
from tlcli.features.backbone import make_preprocessing
from tlcli.training.head.l2_selection import select_folds

PER_CLASS, SUBSETS = 16, 3
BATCH, ROUNDS, REPEATS = 32, 3, 5


def subset(labels, pool, seed):
    """Return up to 16 random images of each class."""
    generator = np.random.default_rng(seed)
    classes = [pool[labels[pool] == label] for label in np.unique(labels)]
    return np.concatenate([generator.choice(rows, min(PER_CLASS, len(rows)), replace=False) for rows in classes])


def accuracy(features, labels, rows, test):
    """Accuracy on test images of the head that is fitted on `rows`."""
    folds = np.array(assign_folds([str(row) for row in rows], labels[rows].tolist(), seed=0))
    fitted = torch.from_numpy(features[rows]), torch.from_numpy(labels[rows])
    head = select_folds(fitted, folds, classes=len(np.unique(labels))).head
    return (head.logits(torch.from_numpy(features[test])).numpy().argmax(axis=1) == labels[test]).mean()


def compare(path):
    rows = pq.read_table(path).sort_by("path")
    features = np.array(rows["feature"].to_pylist(), np.float32)
    labels = np.unique(rows["label"].to_pylist(), return_inverse=True)[1]
    split = np.array(rows["split"].to_pylist())
    pool, test = np.flatnonzero(split != "test"), np.flatnonzero(split == "test")
    few = [accuracy(features, labels, subset(labels, pool, seed), test) for seed in range(SUBSETS)]
    error = np.std(few, ddof=1) / np.sqrt(SUBSETS)
    everything = accuracy(features, labels, pool, test)
    return Path(path).stem, f"{np.mean(few):.3f} ± {error:.3f}", f"{everything:.3f}", len(pool), len(test)


def open_network(name):
    """Return the frozen layers, and a batch of random pixels."""
    backbone = load_backbone(name, "none", classes=10)
    preprocessing = make_preprocessing(backbone, "crop")
    runner = ExportedRunner(OnnxSession(load_or_export_onnx(cut_at(backbone, "all").prefix, preprocessing, None)))
    return runner, np.random.default_rng(0).integers(0, 256, (BATCH, *preprocessing.shape), np.uint8)


def speeds(names):
    """Features per second of CPU time, times two cores: the median over rounds in which the networks alternate."""
    networks = {name: open_network(name) for name in names}
    seconds = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name, (runner, pixels) in networks.items():
            list(runner.map([pixels]))  # warm up
            for _ in range(REPEATS):
                started = time.process_time()
                list(runner.map([pixels]))
                seconds[name].append(time.process_time() - started)
    return [(name, f"{2 * BATCH / statistics.median(taken):.0f}") for name, taken in seconds.items()]


def main(arguments):
    if arguments[0] == "--speed":
        print(table(("backbone", "features per second"), speeds(arguments[1:])), machine(), sep="\n\n")
        return
    columns = ("features", f"{PER_CLASS} per class", "all images", "images", "test images")
    print(table(columns, [compare(path) for path in arguments]), machine(), sep="\n\n")


main(sys.argv[1:])
