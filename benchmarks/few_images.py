"""Compare the head on few images with the nearest class mean and linear discriminant analysis.

usage: python benchmarks/few_images.py FEATURES.parquet     a file of `cache-features --export`, with a split `test`
"""

import sys

import numpy as np
import pyarrow.parquet as pq
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tlcli.datasets.splits import assign_folds
from tlcli.inference.calibration import calibrated_probabilities
from tlcli.inference.metrics import Reliability
from tlcli.training.head.l2_selection import select_folds

PER_CLASS, SUBSETS = (3, 5, 10, 20), 20


def subset(labels, pool, per_class, seed):
    generator = np.random.default_rng(seed)
    classes = [pool[labels[pool] == label] for label in np.unique(labels)]
    return np.concatenate([generator.choice(rows, min(per_class, len(rows)), replace=False) for rows in classes])


def nearest_mean(features, labels, others):
    """Scores of the nearest mean of unit-length features."""
    features, others = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (features, others))
    means = np.stack([features[labels == label].mean(axis=0) for label in np.unique(labels)])
    return others @ means.T - (means**2).sum(axis=1) / 2


def measure(features, labels, rows, test):
    """Accuracy of the head on test, averaged over its classes, reported, and minus that of the others; ECE on test."""
    x, y = features[rows], labels[rows]
    folds = np.array(assign_folds([str(row) for row in rows], y.tolist(), seed=0))
    chosen = select_folds((torch.from_numpy(x), torch.from_numpy(y)), folds, classes=len(np.unique(labels)))
    logits = chosen.head.logits(torch.from_numpy(features[test])).numpy()
    probabilities = calibrated_probabilities(logits, chosen.temperature)
    reliability = Reliability()
    reliability.update(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels[test])
    discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, y)
    others = nearest_mean(x, y, features[test]), discriminant.decision_function(features[test])
    accuracies = [(scores.argmax(axis=1) == labels[test]).mean() for scores in (logits, *others)]
    right = logits.argmax(axis=1) == labels[test]
    per_class = np.mean([right[labels[test] == label].mean() for label in np.unique(labels[test])])
    return (
        accuracies[0],
        per_class,
        (chosen.logits.argmax(axis=1) == y).mean(),
        *(accuracies[0] - other for other in accuracies[1:]),
        reliability.result()["ece"],
    )


def main(path):
    table = pq.read_table(path)
    features = np.array(table["feature"].to_pylist(), np.float32)
    labels = np.unique(table["label"].to_pylist(), return_inverse=True)[1]
    split = np.array(table["split"].to_pylist())
    pool, test = np.flatnonzero(split != "test"), np.flatnonzero(split == "test")
    print(
        "| images per class | test accuracy | mean over classes | reported | less nearest mean | less LDA | ECE |\n"
        "|---|---|---|---|---|---|---|"
    )
    for per_class in PER_CLASS:
        found = np.array(
            [measure(features, labels, subset(labels, pool, per_class, seed), test) for seed in range(SUBSETS)]
        )
        mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(SUBSETS)
        cells = [f"{value:.3f} ± {spread:.3f}" for value, spread in zip(mean, error, strict=True)]
        print(f"| {per_class} | {' | '.join(cells)} |", flush=True)


main(sys.argv[1])
