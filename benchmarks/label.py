"""Compare labeling with the network's help with labeling images in random order, by a simulated annotator.

usage: python benchmarks/label.py FEATURES.parquet...   files of `tlcli cache-features DATA --freeze all --export FILE`
       python benchmarks/label.py --estimates FEATURES.parquet...   the accuracy that the page shows, and the true one
       python benchmarks/label.py --speed               duration of a fit and a choice, on 10,000 and 100,000 images

The annotator labels batches of 24 training images. Accuracies are those on test images, of the head that is fitted on
the labels so far, and "with unlabeled" on the other training images as well (as `finetune --unlabeled`); the final
accuracy is that with all training images. For --estimates, a quarter of the images of all splits, another one with each
seed, is kept apart: they are new images like those that are labeled, which test images need not be.
"""

import resource
import statistics
import sys
import time
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from measure import machine, read_features, table

from tlcli.inference.metrics import Reliability
from tlcli.training.active_learning.estimate import assess
from tlcli.training.active_learning.learner import ActiveLearner
from tlcli.training.active_learning.proposals import TEMPERATURE, fit_model
from tlcli.training.head.pseudo_labels import NeighborGraph, pseudo_labels

BATCH, SEEDS, MOST = 24, 5, 384
COUNTS = (*range(2, 48, 2), *range(48, 192, 6), *range(192, MOST + 1, 12))
"""Numbers of labels with which accuracies are measured."""
TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the final accuracy."""
SHOWN = (24, 48, 96, 192, 384)
"""Numbers of labels with which accuracies are shown."""
REVIEWED = (48, 96, 192, 288)
"""Numbers of labels with which proposals are compared with the truth."""
ESTIMATED = (48, 96, 192, 384)
"""Numbers of labels with which the accuracy is estimated."""
ESTIMATE_SEEDS = range(500, 540)
"""Seeds of --estimates, with which nothing was chosen."""


class Data:
    """Training and test images of a dataset; with a seed, three quarters and one quarter of all images at random."""

    def __init__(self, path, seed=None):
        features, names, splits = read_features(path)
        labels = np.unique(names, return_inverse=True)[1]
        train, test = splits == "train", splits == "test"
        if seed is not None:
            order = np.random.default_rng(seed).permutation(len(labels))
            test, train = np.split(order, [len(order) // 4])
        self.features, self.labels = features[train], labels[train]
        self.test_features, self.test_labels = features[test], labels[test]
        self.classes = int(labels.max()) + 1

    @cached_property
    def graph(self):
        """The nearest neighbors among the training images."""
        return NeighborGraph(self.features)

    def accuracy(self, rows, *, unlabeled=False):
        """Accuracy on test images of the head fitted on some training images, and on the others without labels."""
        present, targets = np.unique(self.labels[rows], return_inverse=True)
        if len(present) == 1:
            return (self.test_labels == present[0]).mean()
        head = fit_model(self.features[rows], targets)
        if unlabeled:
            known = np.full(len(self.labels), -1)
            known[rows] = targets
            others, found = pseudo_labels(self.graph, torch.from_numpy(self.features), known, head, TEMPERATURE)
            head = fit_model(self.features[np.concatenate([rows, others])], np.concatenate([targets, found]))
        return (present[head.logits(torch.from_numpy(self.test_features)).argmax(dim=1)] == self.test_labels).mean()


def in_random_order(data, seed):
    return np.random.default_rng(seed).permutation(len(data.labels))[:MOST]


def with_help(data, seed, review=None, most=MOST):
    """Return the rows of images in the order in which they are labeled."""
    learner = ActiveLearner(data.features.shape[1], seed=seed)
    order = np.random.default_rng(seed).permutation(len(data.labels))
    learner.add(order, data.features[order])
    labels, at_random = {}, []
    while len(labels) < min(most, len(order)):
        choices = learner.select(BATCH)
        if not choices:
            break
        at_random += [choice.id for choice in choices if choice.source == "random"]
        labels |= {choice.id: int(data.labels[choice.id]) for choice in choices}
        learner.fit(labels, data.classes, at_random)
        if review:
            review(learner, labels, at_random)
    return np.array(list(labels))


def curve(data, order, *, unlabeled=False):
    """Test accuracies with the first `COUNTS` images."""
    return [data.accuracy(order[:count], unlabeled=unlabeled) for count in COUNTS if count <= len(order)]


def labels_needed(accuracies, target):
    """Number of labels from which on the mean accuracy reaches a target, interpolated."""
    reached = np.flatnonzero(accuracies >= target)
    if not len(reached):
        return float("inf")
    first = reached[0]
    if first == 0:
        return COUNTS[0]
    part = (target - accuracies[first - 1]) / (accuracies[first] - accuracies[first - 1])
    return COUNTS[first - 1] + part * (COUNTS[first] - COUNTS[first - 1])


def number(count):
    return f"{count:.0f}" if np.isfinite(count) else f"> {MOST}"


def ratio(count, base):
    """Format labels and their ratio to others, a bound if these were not enough."""
    if not np.isfinite(count):
        return number(count)
    return f"{count:.0f} ({count / base:.2f})" if np.isfinite(base) else f"{count:.0f} (< {count / MOST:.2f})"


def compare(path):
    data, name = Data(path), Path(path).stem
    final = data.accuracy(np.arange(len(data.labels)))
    reviews = []

    def reviewed(data, seed):
        return with_help(data, seed, review)

    def review(learner, labels, at_random):
        if len(labels) not in REVIEWED:
            return
        left = np.setdiff1d(np.arange(len(data.labels)), list(labels))
        proposed, confidences = learner.proposals(left)
        correct = proposed == data.labels[left]
        reliability = Reliability()
        reliability.update(confidences, correct)
        reviews.append(
            [
                len(labels),
                correct.mean(),
                confidences.mean(),
                reliability.result()["ece"],
            ]
        )

    orders = [[order(data, seed) for seed in range(SEEDS)] for order in (in_random_order, reviewed)]
    random, helped, random_more, helped_more = (
        np.mean([curve(data, order, unlabeled=unlabeled) for order in some], axis=0)
        for unlabeled in (False, True)
        for some in orders
    )
    rows = []
    for target in TARGETS:
        base, *counts = (labels_needed(some, target * final) for some in (random, random_more, helped, helped_more))
        rows.append(
            [name, f"{target:.0%} ({target * final:.3f})", number(base), *(ratio(count, base) for count in counts)]
        )
    curves = zip(COUNTS, random, random_more, helped, helped_more, strict=True)
    shown = [[name, count, *(f"{value:.3f}" for value in values)] for count, *values in curves if count in SHOWN]
    return rows, shown, [[name, *row] for row in summary(reviews)]


def summary(reviews):
    reviews = np.array(reviews, float)
    for count in REVIEWED:
        columns = reviews[reviews[:, 0] == count].T[1:]
        known = [column[np.isfinite(column)] for column in columns]
        yield [count, *(f"{column.mean():.3f}" if len(column) else "" for column in known)]


def estimates(path):
    """Compare the estimated accuracy with that on new images, and on those that have no label yet."""
    found = {count: [] for count in ESTIMATED}

    def review(learner, labels, at_random):
        if len(labels) not in found:
            return
        ids, features, classes = learner.training_data()
        estimate, gain = assess(features, classes, np.isin(ids, at_random))
        left = np.setdiff1d(np.arange(len(data.labels)), list(labels))
        new, rest = data.accuracy(ids), (learner.proposals(left)[0] == data.labels[left]).mean()
        row = [new, rest, gain.accuracy, len(at_random), *[np.nan] * 4]
        if estimate is not None:
            low, high = estimate.interval
            row[4:] = estimate.accuracy, low <= new <= high, low <= rest <= high, high - low
        found[len(labels)].append(row)

    for seed in ESTIMATE_SEEDS:
        data = Data(path, seed)
        with_help(data, seed, review)
    for count, rows in found.items():
        new, rest, gain, judged, estimated, *within, width = np.mean(rows, axis=0)
        error = np.std(rows, axis=0)[4] / len(rows) ** 0.5
        shown = [f"{estimated:.3f} ± {error:.3f}", f"{width:.2f}", *(f"{share:.0%}" for share in within)]
        shown = shown if np.isfinite(estimated) else [""] * 4
        yield [Path(path).stem, count, f"{new:.3f}", f"{rest:.3f}", f"{judged:.0f}", *shown, f"{gain:.3f}"]


def speed(count, classes=10, labeled=300):
    """Print how long a fit and a choice take on normally distributed clusters, five of each class."""
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(5 * classes, 1280)).astype(np.float32)
    clusters = generator.integers(0, len(centers), count)
    learner = ActiveLearner(1280)
    adding = 0.0
    for start in range(0, count, 1000):
        rows = np.arange(start, min(start + 1000, count))
        features = centers[clusters[rows]] + generator.normal(size=(len(rows), 1280)).astype(np.float32)
        started = time.perf_counter()
        learner.add(rows, features)
        adding += time.perf_counter() - started
    labels, taken = {}, []
    while len(labels) < labeled + 5 * BATCH:
        started = time.perf_counter()
        learner.fit(labels, classes, list(labels)[::8])
        fitted = time.perf_counter()
        choices = learner.select(BATCH)
        taken.append((fitted - started, time.perf_counter() - fitted))
        labels |= {choice.id: int(clusters[choice.id]) % classes for choice in choices}
    fit, select = (statistics.median(values) for values in zip(*taken[-5:], strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [
        f"{count:,}",
        f"{1000 * fit:.0f} ms",
        f"{1000 * select:.0f} ms",
        f"{1000 * (fit + select):.0f} ms",
        f"{1e6 * adding / count:.0f} µs",
        f"{peak:.2f} GiB",
        f"{count * 1280 * 4 / 2**30:.2f} GiB",
    ]


def main(words):
    print(machine("scikit-learn"), "\n")
    if words == ["--speed"]:
        rows = [speed(count) for count in (10_000, 100_000)]
        print(table(["images", "fit", "select", "both", "add, per image", "peak memory", "features"], rows))
        return
    if words[0] == "--estimates":
        header = ["data", "labels", "new images", "without a label", "random labels", "estimated", "width of interval"]
        header += ["holds new", "holds without a label", "gain of 50"]
        print(table(header, [row for path in words[1:] for row in estimates(path)]))
        return
    targets, shown, reviews = ([*chain(*rows)] for rows in zip(*map(compare, words), strict=True))
    orders = ["random", "random, with unlabeled", "with help", "with help, with unlabeled"]
    print(table(["data", "target", *orders], targets))
    print("\n" + table(["data", "labels", *orders], shown))
    print("\n" + table(["data", "labels", "accuracy of proposals", "mean confidence", "ECE"], reviews))


if len(sys.argv) < 2:
    sys.exit(__doc__)
main(sys.argv[1:])
