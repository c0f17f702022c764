"""Measure test accuracy by the number of training images and the number of frozen layers.

usage: python benchmarks/freeze.py DATA [EPOCHS]     (DATA has train, validation and test)
Each row of the table uses the first N training images, ordered by the hash of their names; validation and test are the
same for all rows. Frozen networks train on cached features of view 0, `none` on images without augmentation.
"""

import csv
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tlcli.datasets.dataset import open_dataset

SIZES = (100, 300, 1000, None)
DEPTHS = ("all", "blocks.5.0", "blocks.3.2", "none")

data, epochs = sys.argv[1], sys.argv[2:3]
dataset = open_dataset(Path(data))
train = [sample for sample in dataset.samples if sample.split == "train"]
held_out = [sample for sample in dataset.samples if sample.split != "train"]
train.sort(key=lambda sample: hashlib.sha256(Path(sample.path).name.encode()).digest())

print("| training images | " + " | ".join(DEPTHS) + " |\n" + "|---" * (len(DEPTHS) + 1) + "|")
for size in SIZES:
    chosen = train[:size]
    cells = []
    for depth in DEPTHS:
        with tempfile.TemporaryDirectory() as folder:
            table, run = Path(folder) / "data.csv", Path(folder) / "run"
            with table.open("w", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(["path", "label", "split"])
                for sample in chosen + held_out:
                    rows.writerow([Path(sample.path).absolute(), dataset.classes[sample.label], sample.split])
            command = [sys.executable, "-m", "tlcli", "finetune", table, "--out", run, "--freeze", depth]
            options = ["--json", "--quiet", *(["--epochs", *epochs] if epochs and depth != "all" else [])]
            done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
            info = json.loads(done.stdout)
            cells.append(f"{100 * info['test']['accuracy']:.1f} % ({info['seconds']['training']:.0f} s)")
    print(f"| {len(chosen):,} | " + " | ".join(cells) + " |", flush=True)
