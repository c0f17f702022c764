"""Compare what the learning curve of a part of the images forecasts with what all of them give.

usage: python benchmarks/learning_curve.py FEATURES.parquet...     files of `cache-features --export`

The parts are 1/3, 1/2, and 2/3 of the images, by groups of similar ones, with several seeds; all splits are pooled.
Errors are in points of accuracy, measured out of fold: forecast minus that of all images. Environment: SEEDS=4; with
VALIDATION=300, so many images are validation images, on which accuracies are measured instead.
"""

import os
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import torch
from measure import table

from tlcli.datasets.splits import assign_folds
from tlcli.features.similar_images import find_similar_images
from tlcli.training import learning_curve as curves
from tlcli.training.head.class_weights import UNWEIGHTED
from tlcli.training.head.l2_selection import select_folds, select_holdout
from tlcli.training.head.parts import fold_part_errors, holdout_part_errors, order_in_class

SEEDS, SHARES = int(os.environ.get("SEEDS", "4")), (1 / 3, 1 / 2, 2 / 3)
VALIDATION = int(os.environ.get("VALIDATION", "0"))


def fit(features, labels, keys, seed, validation=None):
    """Return how the head was fitted: the errors of its parts, and which images are predicted incorrectly."""
    how = {"classes": int(labels.max()) + 1, "weighting": UNWEIGHTED, "device": "cpu"}
    if validation is not None:
        train = torch.from_numpy(features), torch.from_numpy(labels)
        fitted = select_holdout(train, validation, **how)
        order = order_in_class(keys, labels.tolist(), seed=seed)
        errors = holdout_part_errors(train, validation, fitted, order, how)
        return errors, fitted.logits.argmax(axis=1) != validation[1].numpy()
    folds = np.array(assign_folds(keys, labels.tolist(), seed=seed))
    train = torch.from_numpy(features), torch.from_numpy(labels)
    fitted = select_folds(train, folds, **how)
    order = order_in_class(keys, labels.tolist(), seed=seed)
    return fold_part_errors(train, fitted, folds, order, how), fitted.logits.argmax(axis=1) != labels


def forecast(errors, wrong, images, more, classes):
    """Return the forecast for exactly `more` images, or None."""
    with mock.patch.object(curves, "_round", return_value=more):
        found = curves.learning_curve(errors, wrong, images=images, classes=classes, folds=not VALIDATION)
    return found.forecast


def rows_of(path):
    """Return [now, forecast, low, high, truth] of each part, and the number of parts without a forecast."""
    stored = pq.read_table(path)
    features = np.stack(stored["feature"].to_numpy()).astype(np.float32)
    labels, keys = np.unique(stored["label"].to_pylist(), return_inverse=True)[1], stored["digest"].to_pylist()
    similar = find_similar_images(lambda start, stop: features[start:stop].copy(), labels)
    for first, *others in similar.groups(np.ones(len(labels), bool)):
        for other in others:
            keys[other] = keys[first]
    validation = None
    if VALIDATION:
        drawn = np.isin(np.arange(len(labels)), np.random.default_rng(0).permutation(len(labels))[:VALIDATION])
        validation = torch.from_numpy(features[drawn]), torch.from_numpy(labels[drawn])
        features, labels = features[~drawn], labels[~drawn]
        keys = [key for key, out in zip(keys, drawn, strict=True) if not out]
    truth = 1 - np.mean([fit(features, labels, keys, seed, validation)[1].mean() for seed in range(2)])
    found, missing = [], 0
    for seed in range(SEEDS):
        groups, group = np.unique(keys, return_inverse=True)
        order = np.argsort(np.random.default_rng(seed).random(len(groups))[group], kind="stable")
        for share in SHARES:
            rows = np.sort(order[: round(share * len(labels))])
            errors, wrong = fit(features[rows], labels[rows], [keys[row] for row in rows], seed, validation)
            said = forecast(errors, wrong, len(rows), len(labels) - len(rows), int(labels.max()) + 1)
            missing += said is None
            if said is not None:
                found.append([1 - wrong.mean(), said.accuracy, said.low, said.high, truth])
    return 100 * np.array(found).reshape(-1, 5), missing


def line(name, rows, missing):
    """Return a row of the table."""
    if not len(rows):
        return [name, 0, missing, *["-"] * 6]
    now, mean, low, high, truth = rows.T
    return [
        *(name, len(rows), missing, f"{(truth - now).mean():+.1f}", f"{(mean - now).mean():+.1f}"),
        *(f"{(mean - truth).mean():+.1f}", f"{np.abs(mean - truth).mean():.1f}", f"± {(high - low).mean() / 2:.1f}"),
        f"{100 * ((low <= truth) & (truth <= high)).mean():.0f} %",
    ]


def main(paths):
    results = {Path(path).stem: rows_of(path) for path in paths}
    everything = np.concatenate([rows for rows, _ in results.values()])
    lines = [line(name, *result) for name, result in results.items()]
    lines.append(line("all", everything, sum(missing for _, missing in results.values())))
    names = ["", "forecasts", "none", "true gain", "forecast gain", "mean error", "absolute", "interval", "covers"]
    print(table(names, lines))


if __name__ == "__main__":
    main(sys.argv[1:])
