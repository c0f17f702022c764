"""Compare the convex head with scikit-learn's, and measure it at scale, from disk.

usage: python benchmarks/head.py FEATURES.parquet     compare with scikit-learn, on a file of `cache-features --export`
       python benchmarks/head.py --scale ROWS         use synthetic features, ROWS x 1,280, mapped from a file
"""

import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from tlcli.training.head.l2_selection import select_folds
from tlcli.training.head.softmax_regression import fit_paths
from tlcli.training.head.sweep import L2S

CLASSES, FEATURES, RUNS = 10, 1280, 5


class MappedFeatures:
    """A matrix float32 [rows, FEATURES] mapped from a file."""

    def __init__(self, path, rows):
        self._matrix = np.memmap(path, np.float32, "r", shape=(rows, FEATURES))
        self.shape = self._matrix.shape

    def read(self, start, stop):
        """Return rows as an array in memory."""
        return np.array(self._matrix[start:stop])


class MemorySampler(threading.Thread):
    """Samples the anonymous memory (RssAnon) of this process, which excludes mapped files."""

    peak = 0.0
    """in gigabytes"""

    def run(self):
        """Sample until the process ends."""
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            self.peak = max(self.peak, next(int(line.split()[1]) / 1e6 for line in lines if line.startswith("RssAnon")))
            time.sleep(0.05)


def scale(rows):
    memory = MemorySampler(daemon=True)
    memory.start()
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, rows)
    centers = generator.normal(size=(CLASSES, FEATURES)).astype(np.float32)
    mixing = (generator.normal(size=(FEATURES, FEATURES)) / np.sqrt(FEATURES)).astype(np.float32)
    folder = os.environ.get("TMPDIR", "/tmp")
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for start in range(0, rows, 8192):
            some = labels[start : start + 8192]
            noise = generator.standard_normal((len(some), FEATURES), np.float32) @ mixing
            (0.05 * centers[some] + noise).astype(np.float32).tofile(file)
        file.flush()
        features, targets = MappedFeatures(file.name, rows), torch.from_numpy(labels)
        started = time.monotonic()
        list(fit_paths(features, targets, [torch.ones(rows)], classes=CLASSES, l2s=[0.1]))
        one = time.monotonic() - started
        started = time.monotonic()
        list(fit_paths(features, targets, [torch.ones(rows)], classes=CLASSES, l2s=L2S[:6]))
        path = time.monotonic() - started
        started = time.monotonic()
        chosen = select_folds((features, targets), np.arange(rows) % 5, classes=CLASSES)
        folds = time.monotonic() - started
    print("| rows | one fit at 0.1 | path of six L2 | five folds and refit | L2 | accuracy | peak RssAnon | mapped |")
    print("|---|---|---|---|---|---|---|---|")
    accuracy = (chosen.logits.argmax(axis=1) == labels).mean()
    print(
        f"| {rows:,} | {one:.0f} s | {path:.0f} s | {folds:.0f} s, {len(chosen.sweep)} L2 | {chosen.l2:.3g} | "
        f"{100 * accuracy:.1f} % | {memory.peak:.1f} GB | {rows * FEATURES * 4 / 1e9:.1f} GB |"
    )


def compare_with_scikit_learn(path):
    import pyarrow.parquet as pq
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    table = pq.read_table(path)
    features = np.array(table["feature"].to_pylist(), np.float32)
    classes, labels = np.unique(table["label"].to_pylist(), return_inverse=True)
    count = len(labels)
    l2 = 0.1
    taken = {"tlcli": [], "scikit-learn": []}
    losses = {}
    for _ in range(RUNS):
        started = time.monotonic()
        weights = [torch.ones(count)]
        tensors = torch.from_numpy(features), torch.from_numpy(labels)
        ((head,),) = fit_paths(*tensors, weights, classes=len(classes), l2s=[l2])
        taken["tlcli"].append(time.monotonic() - started)
        started = time.monotonic()
        scaler = StandardScaler().fit(features)
        standardized = scaler.transform(features)
        # scikit-learn's C scales the sum of losses, our L2 the mean.
        peer = LogisticRegression(C=1 / (l2 * count), max_iter=1000).fit(standardized, labels)
        taken["scikit-learn"].append(time.monotonic() - started)
    scale_ = scaler.scale_.astype(np.float64)
    weight, raw = head.weight.double().numpy() * scale_, features.astype(np.float64)
    losses["tlcli"] = objective(raw @ head.weight.double().numpy().T + head.bias.double().numpy(), labels, weight, l2)
    scores = standardized.astype(np.float64) @ peer.coef_.T + peer.intercept_
    losses["scikit-learn"] = objective(scores, labels, peer.coef_, l2)
    print(f"{count:,} x {features.shape[1]:,}, {len(classes)} classes, L2 {l2}, medians of {RUNS} alternating runs\n")
    print("| | seconds | objective |\n|---|---|---|")
    for name, seconds in taken.items():
        print(f"| {name} | {statistics.median(seconds):.2f} | {losses[name]:.6f} |")
    ratio = statistics.median(taken["scikit-learn"]) / statistics.median(taken["tlcli"])
    print(f"\n{ratio:.1f} times faster.")


def objective(scores, labels, weight, l2):
    scores = scores - scores.max(axis=1, keepdims=True)
    loss = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(labels)), labels]
    return loss.mean() + l2 / 2 * (weight**2).sum()


if sys.argv[1] == "--scale":
    scale(int(sys.argv[2]))
else:
    compare_with_scikit_learn(sys.argv[1])
