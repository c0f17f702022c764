"""Compare methods that tell unknown images from known ones, on cached features.

usage: python benchmarks/unknown.py KNOWN.parquet OTHER.parquet...   files of `tlcli cache-features DATA --export FILE`
       python benchmarks/unknown.py --cost                           CPU time per image with 10,000 vectors

Known images are those of KNOWN: heads are fitted on its training images, and its other images are new ones. Unknown
images are those of the OTHER files, and those of each class of KNOWN in turn, left out of training.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from measure import NETWORK, machine, read_features, table
from sklearn.metrics import roc_auc_score

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.onnx_export import load_or_export_onnx
from tlcli.engines.onnx_session import OnnxSession
from tlcli.inference.calibration import calibrated_probabilities
from tlcli.inference.novelty import NEIGHBORS, FeatureBank, Novelty, energies
from tlcli.training.head.l2_selection import select_folds
from tlcli.training.novelty import NoveltyRows, fit_novelty

MAXIMUM, FOLDS, SEED = 1200, 5, 0
"""Images of each OTHER file, and folds."""


def standardized(scores):
    """Return scores in standard deviations of the known images, the first of them."""
    return [(some - scores[0].mean()) / scores[0].std() for some in scores]


def total(*methods):
    return [sum(parts) for parts in zip(*map(standardized, methods), strict=True)]


def neighbors(train, sets, *, centered, every=1):
    """Mean cosine distances of each set to the nearest training features; a training image is not its own neighbor."""
    center = centered * train.mean(axis=0)

    def directions(features):
        moved = features - center
        return moved / np.linalg.norm(moved, axis=1, keepdims=True)

    bank, found = directions(train[::every]), []
    for features in sets:
        cosines = directions(features) @ bank.T
        if features is train:
            cosines[np.arange(0, len(train), every), np.arange(len(bank))] = -1
        found.append(1 - np.partition(cosines, -NEIGHBORS, axis=1)[:, -NEIGHBORS:].mean(axis=1))
    return found


def out_of_fold(train, sets, folds, score):
    """Scores of each set by `score(rows, features)`, those of training images by a fit without their fold."""
    known = np.empty(len(train))
    for fold in range(FOLDS):
        known[folds == fold] = score(folds != fold, train[folds == fold])
    return [known if features is train else score(np.ones(len(train), bool), features) for features in sets]


def mahalanobis(train, labels):
    def score(rows, features):
        means = np.stack([train[rows & (labels == label)].mean(axis=0) for label in np.unique(labels)])
        residuals = (train - means[labels])[rows]
        covariance = residuals.T @ residuals / len(residuals)
        covariance += 0.1 * np.trace(covariance) / len(covariance) * np.eye(len(covariance), dtype=np.float32)
        root = np.linalg.cholesky(np.linalg.inv(covariance))
        return np.min([(((features - mean) @ root) ** 2).sum(axis=1) for mean in means], axis=0)

    return score


def residual(train):
    """The length of what 256 principal directions leave (Wang et al. 2022, ViM)."""

    def score(rows, features):
        center = train[rows].mean(axis=0)
        rest = np.linalg.eigh(np.cov((train[rows] - center).T))[1][:, :-256]
        return np.linalg.norm((features - center) @ rest, axis=1)

    return score


def tlcli(train, logits, sets, bank=None):
    """What `predict` computes, with another bank of training images if there is one."""
    count = len(train)
    rows = list(range(count))
    fitted = fit_novelty(
        NoveltyRows(bank=rows if bank is None else bank, known=rows, logits=logits[0], groups=dict(enumerate(rows))),
        train,
    ).novelty
    # Out of fold, known images have the novelties 0, 1 / (N + 1), ... by construction.
    return [np.arange(count) / (count + 1), *(fitted(*pair) for pair in zip(sets[1:], logits[1:], strict=True))]


def methods(train, labels, others):
    """Return the scores of each method: of the training images out of fold, then of each of the others."""
    count, classes = len(train), len(np.unique(labels))
    folds = np.random.default_rng(SEED).integers(0, FOLDS, count)
    head = select_folds((torch.from_numpy(train), torch.from_numpy(labels)), folds, classes=classes)
    logits = [head.logits, *(head.head.logits(torch.from_numpy(features)).numpy() for features in others)]
    sets = [train, *others]
    energy = [energies(values) for values in logits]
    found = {
        "maximum probability": [-calibrated_probabilities(values, head.temperature).max(axis=1) for values in logits],
        "energy": energy,
        "Mahalanobis": out_of_fold(train, sets, folds, mahalanobis(train, labels)),
    }
    virtual = out_of_fold(train, sets, folds, residual(train))
    scale = np.mean(logits[0].max(axis=1)) / virtual[0].mean()
    found["ViM"] = [scale * length + value for length, value in zip(virtual, energy, strict=True)]
    for centered, name in ((0, "plain"), (0.5, "half centered"), (1, "centered")):
        found[f"10 neighbors, {name}"] = near = neighbors(train, sets, centered=centered)
        found[f"10 neighbors, {name}, + energy"] = total(near, energy)
    third = neighbors(train, sets, centered=0.5, every=3)
    found["10 neighbors, half centered, every third image, + energy"] = total(third, energy)
    found["**tlcli** (the bank projected to 128 values)"] = tlcli(train, logits, sets)
    found["tlcli, every third image in the bank"] = tlcli(train, logits, sets, list(range(0, count, 3)))
    return found


def auroc(known, unknown):
    return roc_auc_score(np.r_[np.zeros(len(known)), np.ones(len(unknown))], np.r_[known, unknown])


def compare(path, other_paths):
    features, names, splits = read_features(path)
    labels, train = np.unique(names, return_inverse=True)[1], splits == "train"
    others = [read_features(other)[0][:MAXIMUM] for other in other_paths]
    scores = methods(features[train], labels[train], [features[~train], *others])
    left_out = {name: [] for name in scores}
    for label in range(labels.max() + 1):
        chosen, apart = train & (labels != label), labels == label
        again = np.where(labels > label, labels - 1, labels)
        found = methods(features[chosen], again[chosen], [features[~train & ~apart], features[apart]])
        for name, (_, new, unknown) in found.items():
            left_out[name].append(auroc(new, unknown))
    rows = []
    for name, (known, new, *unknown) in scores.items():
        limit = np.quantile(new, 0.95)
        rows.append(
            [
                name,
                *(f"{auroc(new, other):.4f}, {100 * (other <= limit).mean():.1f} %" for other in unknown),
                f"{np.mean(left_out[name]):.3f} ({min(left_out[name]):.3f})",
                *(f"{100 * (new > np.quantile(known, 1 - rate)).mean():.1f} %" for rate in (0.01, 0.05)),
            ]
        )
    header = ["method", *(Path(other).stem for other in other_paths), "class left out, mean (worst)"]
    print(table([*header, "flagged at 1 %", "at 5 %"], rows))


def cost():
    """Print the CPU time of novelty, and that of the network, per image."""
    generator = np.random.default_rng(SEED)
    directions = np.linalg.qr(generator.normal(size=(1280, 128)))[0].astype(np.float32)
    vectors = generator.normal(size=(10_000, 128)).astype(np.float32)
    bank = FeatureBank(center=np.zeros(1280, np.float32), directions=directions, vectors=vectors)
    novelty = Novelty(bank=bank, scale=np.ones(2), known=np.arange(10_000.0))
    features, logits = generator.normal(size=(32, 1280)).astype(np.float32), np.zeros((32, 10), np.float32)
    session = OnnxSession(load_or_export_onnx(cut_at(load_backbone(), "all").prefix, NETWORK, None))
    pixels = generator.integers(0, 256, (32, *NETWORK.shape), np.uint8)
    for name, work in (("novelty", lambda: novelty(features, logits)), ("network", lambda: session.run(pixels))):
        taken = []
        for _ in range(10):
            started = time.process_time()
            work()
            taken.append(1000 * (time.process_time() - started) / 32)
        print(
            f"{name}: {np.median(taken):.2f} ms of CPU time per image; the run's file: {len(novelty.to_bytes())} bytes"
        )


if len(sys.argv) < 2:
    sys.exit(__doc__)
print(machine("scikit-learn"), "\n")
if sys.argv[1] == "--cost":
    cost()
else:
    compare(sys.argv[1], sys.argv[2:])
