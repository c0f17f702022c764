"""Review labels of which some are wrong, by a simulated person who knows the right ones: how many are repaired?

usage: python benchmarks/review.py DATA...    class folders, or splits of class folders: their training images are used

In each of three seeds, 5 % of the labels are replaced at random, and the first tenth of the images that `tlcli label`
shows is reviewed, through its HTTP interface. Features are kept in the default cache, or that of TLCLI_CACHE.
"""

import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from measure import TLCLI, machine, table

from tlcli.datasets.dataset import open_dataset

SEEDS, WRONG, REVIEWED, BATCH = 3, 0.05, 0.1, 24


def write_noisy(data, seed, file):
    """Write a table of training images, some with wrong labels; return the right ones, and how many are wrong."""
    dataset, generator = open_dataset(data), np.random.default_rng(seed)
    samples = [sample for sample in dataset.samples if sample.split in {None, "train"}]
    labels = np.array([sample.label for sample in samples])
    wrong = generator.permutation(len(labels))[: round(WRONG * len(labels))]
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + generator.integers(1, len(dataset.classes), len(wrong))) % len(dataset.classes)
    paths = [str(Path(sample.path).resolve()) for sample in samples]
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "label"])
        writer.writerows((path, dataset.classes[label]) for path, label in zip(paths, noisy, strict=True))
    return {path: dataset.classes[label] for path, label in zip(paths, labels, strict=True)}, len(wrong)


def review(file, right):
    """Review the first tenth; return how many labels changed."""
    command = [*TLCLI, "label", str(file), "--no-browser", "--quiet", "--out", str(file.with_name("corrections.csv"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        address = json.loads(process.stdout.readline())
        root = address["url"].partition("/?")[0]

        def send(path, body=None):
            headers = {"Authorization": f"Bearer {address['token']}", "Content-Type": "application/json"}
            request = urllib.request.Request(root + path, body and json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request) as response:
                return json.load(response)

        left, repaired = round(REVIEWED * len(right)), 0
        while left:
            images = send(f"/api/batch?size={min(BATCH, left)}")["images"]
            if not images:  # the labels are not ranked yet
                time.sleep(0.5)
                continue
            repaired += sum(right[image["path"]] != image["label"] for image in images)
            answers = [{"id": image["id"], "label": right[image["path"]]} for image in images]
            send("/api/labels", {"labels": answers})
            left -= len(images)
        process.send_signal(signal.SIGINT)
    return repaired


rows = []
for data in sys.argv[1:]:
    shares = []
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            right, wrong = write_noisy(Path(data), seed, Path(folder) / "noisy.csv")
            shares.append(review(Path(folder) / "noisy.csv", right) / wrong)
    rows.append([Path(data).name, f"{len(right):,}", wrong, *(f"{100 * share:.0f} %" for share in shares)])
print(machine(), end="\n\n")
print(table(["data", "images", "wrong labels", *(f"repaired, seed {seed}" for seed in range(SEEDS))], rows))
