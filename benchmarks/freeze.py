"""How much to freeze: test accuracy by the number of training images and the depth of freezing.

usage: python benchmarks/freeze.py DATA [EPOCHS]     (DATA with train, validation and test; default epochs unless given)
Each row of the table takes the first N training images in an order of their own (the hash of their names); validation
and test are the same for all. Depths that are cut train on cached plain features, `none` on plain images.
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
others = [sample for sample in dataset.samples if sample.split != "train"]
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
                for sample in chosen + others:
                    rows.writerow([Path(sample.path).absolute(), dataset.classes[sample.label], sample.split])
            command = [sys.executable, "-m", "tlcli", "finetune", table, "--out", run, "--freeze", depth]
            options = ["--json", "--quiet", *(["--epochs", *epochs] if epochs and depth != "all" else [])]
            done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
            info = json.loads(done.stdout)
            cells.append(f"{100 * info['test']['accuracy']:.1f} % ({info['seconds']['training']:.0f} s)")
    print(f"| {len(chosen):,} | " + " | ".join(cells) + " |", flush=True)
