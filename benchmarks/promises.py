"""Measure whether promised precisions and prediction sets hold on new images, over random divisions of a dataset.

usage: python benchmarks/promises.py FEATURES.parquet [DIVISIONS]     a file of `tlcli cache-features DATA --export`

Each division trains a head on four fifths of all images, chooses thresholds and sets by its out-of-fold predictions, as
`tlcli predict --target-precision --sets` does, and applies them to the other fifth.
"""

import sys

import numpy as np
import torch
from measure import machine, read_features, table

from tlcli.datasets.splits import assign_folds
from tlcli.inference.calibration import calibrated_probabilities
from tlcli.inference.precision import promise_precision
from tlcli.inference.prediction_sets import prediction_sets, set_limit
from tlcli.runs.held_out_predictions import HeldOutPredictions
from tlcli.training.head.l2_selection import select_folds

TARGETS, COVERAGES, DIVISIONS = (0.9, 0.95, 0.98), (0.9, 0.95, 0.99), 100


def predictions(logits, temperature, labels):
    return HeldOutPredictions(
        labels=labels, predicted=logits.argmax(axis=1), probabilities=calibrated_probabilities(logits, temperature)
    )


def divided(features, labels, seed):
    """Return predictions of the training images out of fold, and of the other images."""
    generator = np.random.default_rng(seed)
    test = generator.random(len(labels)) < 0.2
    train = torch.from_numpy(features[~test]), torch.from_numpy(labels[~test])
    rows = np.flatnonzero(~test)
    folds = np.array(assign_folds([str(row) for row in rows], train[1].tolist(), seed=seed))
    head = select_folds(train, folds, classes=labels.max() + 1)
    new = head.head.logits(torch.from_numpy(features[test])).numpy()
    return predictions(head.logits, head.temperature, labels[~test]), predictions(new, head.temperature, labels[test])


def precision_of(held_out, new, target):
    """Return the promised share, and of the new images the share that stays automatic, and its precision."""
    classes = [str(label) for label in range(held_out.probabilities.shape[1])]
    promises = promise_precision(held_out, classes, [target] * len(classes))
    lowest = np.array([np.inf if promise.threshold is None else promise.threshold for promise in promises])
    automatic = new.confidences >= lowest[new.predicted]
    right = (new.predicted == new.labels)[automatic]
    return (
        sum(promise.automatic for promise in promises) / len(held_out.labels),
        automatic.mean(),
        right.mean() if len(right) else np.nan,
        np.isfinite(lowest).sum(),
    )


def sets_of(held_out, new, coverage):
    """Return the share of new images whose set has the true class, the mean size, and the share of single classes."""
    limit = set_limit(held_out, coverage)
    sets = prediction_sets(new, limit)
    sizes = np.array([len(chosen) for chosen in sets])
    covered = [label in chosen for label, chosen in zip(new.labels.tolist(), sets, strict=True)]
    return np.mean(covered), sizes.mean(), (sizes == 1).mean()


def main(path, divisions=DIVISIONS):
    print(machine("scikit-learn"), "\n")
    features, names, _ = read_features(path)
    labels = np.unique(names, return_inverse=True)[1]
    precisions, sets = {target: [] for target in TARGETS}, {coverage: [] for coverage in COVERAGES}
    for seed in range(int(divisions)):
        held_out, new = divided(features, labels, seed)
        for target, found in precisions.items():
            found.append(precision_of(held_out, new, target))
        for coverage, found in sets.items():
            found.append(sets_of(held_out, new, coverage))
    rows = []
    for target, found in precisions.items():
        promised, automatic, precision, classes = np.array(found).T
        kept = precision[~np.isnan(precision)]
        rows.append(
            [
                target,
                f"{(kept >= target).sum()} of {len(kept)}",
                f"{kept.mean():.4f}" if len(kept) else "-",
                f"{promised.mean():.3f}",
                f"{automatic.mean():.3f}",
                f"{classes.mean():.1f}",
            ]
        )
    print(
        table(["target", "reached on new images", "precision", "automatic, said", "automatic", "classes"], rows), "\n"
    )
    rows = [[coverage, *(f"{value:.4f}" for value in np.mean(found, axis=0))] for coverage, found in sets.items()]
    print(table(["promised", "coverage of new images", "classes per set", "sets of one class"], rows))


if len(sys.argv) < 2:
    sys.exit(__doc__)
main(*sys.argv[1:])
