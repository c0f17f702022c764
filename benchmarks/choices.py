"""What `auto` chooses, and what each choice is worth on test images.

usage: python benchmarks/choices.py fit NAME...       test accuracy with each fit, and how clearly losses differ
       python benchmarks/choices.py augment DATA...   what --augment auto tries and chooses, and its test accuracy
       python benchmarks/choices.py backbone DATA...  the same for --backbone auto, of the networks on this machine
       python benchmarks/choices.py size DATA...      the same for --size auto

DATA has test images, and NAME stands for the files NAME-crop.parquet, NAME-squash.parquet, and NAME-pad.parquet of
`cache-features DATA --fit FIT --export`. All layers before the head are frozen. Runs go to a temporary folder, features
to the usual cache, so a second call measures no extraction.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from measure import machine, table

from tlcli import finetune
from tlcli.datasets.dataset import Sample
from tlcli.datasets.splits import divide, group_keys, uniform_hash
from tlcli.features.similar_images import find_similar_images
from tlcli.progress import Silent
from tlcli.settings import FinetuneSettings, NetworkSettings
from tlcli.training.choices.network_input import FITS
from tlcli.training.choices.subset import FEWEST_OF_CLASS, FOLDS, IMAGES
from tlcli.training.head.l2_selection import select_folds
from tlcli.training.head.sweep import held_out_losses
from tlcli.training.paired_gain import paired_gain

SEEDS = 2

AUTO = {
    "size": {"network": NetworkSettings(size="auto")},
    "backbone": {"network": NetworkSettings(backbone="auto")},
    "augment": {"augmentation": "auto"},
}


def train(data, **changes):
    """Return `run.json`, and the seconds that the whole run took."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        info = finetune(FinetuneSettings(data=Path(data), out=Path(folder) / "run", **changes), Silent())
        return info, time.monotonic() - started


def accuracy(info):
    return f"{info['test']['accuracy']:.3f}"


def gain(row):
    return "" if row["gain"] is None else f"{row['gain']:+.3f} ± {row['gain_error']:.3f}"


def read(name, fit):
    """Return features, labels, splits, and digests from a file of `cache-features --export`."""
    rows = pq.read_table(f"{name}-{fit}.parquet").sort_by("path")
    labels = np.unique(rows["label"].to_pylist(), return_inverse=True)[1]
    digests = [digest if isinstance(digest, str) else digest.hex() for digest in rows["digest"].to_pylist()]
    return np.array(rows["feature"].to_pylist(), np.float32), labels, np.array(rows["split"].to_pylist()), digests


def subset(labels, train, digests, seed):
    """Return about `IMAGES` training images, of each class its share."""
    kept = []
    for label in np.unique(labels[train]):
        rows = sorted(train[labels[train] == label], key=lambda row: uniform_hash(seed, digests[row]))
        kept += rows[: max(FEWEST_OF_CLASS, round(IMAGES * len(rows) / len(train)))]
    return np.array(sorted(kept))


def fit_head(features, labels, folds, classes):
    return select_folds((torch.from_numpy(features), torch.from_numpy(labels)), folds, classes=classes)


def test_accuracy(features, labels, split, digests):
    train, test = np.flatnonzero(split == "train"), np.flatnonzero(split == "test")
    folds = np.array(divide([digests[row] for row in train], labels[train].tolist(), 5, seed=0))
    head = fit_head(features[train], labels[train], folds, len(np.unique(labels))).head
    return (head.logits(torch.from_numpy(features[test])).numpy().argmax(axis=1) == labels[test]).mean()


def fits(name):
    """Return a row: test accuracy with each fit, and the paired gains over crop with several seeds."""
    data = {fit: read(name, fit) for fit in FITS}
    features, labels, split, digests = data["crop"]
    row, gains = [Path(name).name], {fit: [] for fit in FITS[1:]}
    row += [f"{test_accuracy(*data[fit]):.3f}" for fit in FITS]
    for seed in range(SEEDS):
        rows = subset(labels, np.flatnonzero(split == "train"), digests, seed)
        own = features[rows]
        similar = find_similar_images(lambda start, stop, own=own: own[start:stop], labels[rows])
        groups = similar.groups(np.ones(len(rows), bool))
        samples = [Sample(path="", label=int(label)) for label in labels[rows]]
        keys = group_keys(samples, [bytes.fromhex(digests[row]) for row in rows], groups)
        folds = np.array(divide(keys, labels[rows].tolist(), FOLDS, seed=seed))
        losses = {}
        for fit in FITS:
            fitted = fit_head(data[fit][0][rows], labels[rows], folds, len(np.unique(labels)))
            losses[fit] = held_out_losses(fitted.logits, labels[rows], fitted.log_prior)[1]
        for fit, found in gains.items():
            gain = paired_gain(losses["crop"], losses[fit], keys)
            found.append(f"{gain.mean:+.3f} ± {gain.error:.3f}")
    return [*row, *(", ".join(found) for found in gains.values())]


def tried(data, what):
    """Print the table of one choice, and the test accuracies without and with it."""
    plain, _ = train(data)
    chosen, seconds = train(data, **AUTO[what])
    choice = next(iter(chosen["choices"].values()))
    rows = [
        (
            row["value"],
            f"{row['accuracy']:.3f}",
            f"{row['loss']:.3f}",
            gain(row),
            row["than"] or "",
            f"{row['seconds']:.1f}",
            "chosen" if row["chosen"] else "",
        )
        for row in choice["tried"]
    ]
    print(f"{Path(data).name}: {choice['images']} images, {choice['folds']}-fold\n")
    print(table(("candidate", "accuracy", "loss", "lower by", "than", "seconds", ""), rows))
    print(f"\ntest accuracy {accuracy(plain)} by default, {accuracy(chosen)} with the choice, {seconds:.0f} s in all\n")


def main(what, *folders):
    if what == "fit":
        columns = ("data", *(f"test, {fit}" for fit in FITS), *(f"{fit}: loss lower by" for fit in FITS[1:]))
        print(table(columns, [fits(name) for name in folders]), machine(), sep="\n\n")
        return
    for data in folders:
        tried(data, what)
    print(machine())


main(*sys.argv[1:])
