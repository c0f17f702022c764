"""Compare the phases of tlcli on an idle machine with the same beside one endless loop per core.

usage: python benchmarks/busy.py [DATA] [ROUNDS]      (default: sample_data/pictures, 3 rounds)
"Head" and "map" are called from Python, without the environment variables of the `tlcli` command. Each core has a
neighbor, so a fair share means twice the time; more than three times is a defect.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import TLCLI, machine, table

from tlcli.processes import cores
from tlcli.reports.projection import project_to_map
from tlcli.training.head.l2_selection import select_folds

WIDTH, CLASSES = 1280, 10
MOST = 3


@contextlib.contextmanager
def neighbors():
    """Keep every core busy."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores())]
    time.sleep(1)
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def features(count):
    """Return clusters like those of photographs, float32 [count, WIDTH], and their labels."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % CLASSES
    centers = generator.normal(size=(CLASSES, WIDTH)) / 4
    values = np.maximum(centers[labels] + generator.normal(size=(count, WIDTH)), 0)
    return values.astype(np.float32), labels


def head(count):
    """Return a function that fits the head of this many images."""
    vectors, labels = map(torch.from_numpy, features(count))
    return lambda: select_folds((vectors, labels), np.arange(count) // CLASSES % 5, classes=CLASSES)


def seconds(phase):
    """Return how long a phase takes."""
    started = time.monotonic()
    phase()
    return time.monotonic() - started


data, rounds = (sys.argv[1:] or ["sample_data/pictures"])[0], int((sys.argv[2:] or ["3"])[0])
with tempfile.TemporaryDirectory() as folder:
    warm, run = ["--cache", f"{folder}/warm"], f"{folder}/run"
    finetune = [*TLCLI, "finetune", data, "--out", run, *warm, "--overwrite", "--quiet"]
    subprocess.run(finetune, check=True)
    image = next(path for path in sorted(Path(data).rglob("*")) if path.suffix.lower() in {".jpg", ".jpeg", ".png"})

    def process(*command):
        """Return a function that runs a command."""
        return lambda: subprocess.run([*map(str, command)], check=True, capture_output=True)

    def cold():
        """Compute all features into a new cache."""
        process(*TLCLI, "cache-features", data, "--quiet", "--cache", tempfile.mkdtemp(dir=folder))()

    points = {count: features(count)[0] for count in (20, 500)}
    phases = {
        "head of 245 images": head(245),
        "head of 822 images": head(822),
        "head of 3,068 images": head(3068),
        "map of 20 images": lambda: project_to_map(points[20]),
        "map of 500 images": lambda: project_to_map(points[500]),
        f"`cache-features {data}`, cold": cold,
        "`predict`, one image": process(*TLCLI, "predict", run, image),
        "`finetune`, warm cache": process(*finetune),
        "`finetune --freeze blocks.5.0 --epochs 2`, warm cache": process(
            *finetune, "--freeze", "blocks.5.0", "--epochs", "2"
        ),
    }
    for phase in phases.values():
        phase()  # imports, and the cache of the last one
    taken = {name: ([], []) for name in phases}
    for _ in range(rounds):
        for state, around in enumerate((contextlib.nullcontext, neighbors)):
            with around():
                for name, phase in phases.items():
                    taken[name][state].append(seconds(phase))
print(machine("scikit-learn"), f"Load average at the end: {os.getloadavg()[0]:.1f}.", end="\n\n")
rows = []
for name, times in taken.items():
    quiet, busy = map(statistics.median, times)
    runs = ["/".join(f"{value:.2f}" for value in values) for values in times]
    mark = "" if busy <= MOST * quiet else " (!)"
    rows.append([name, f"{quiet:.2f} s", f"{busy:.2f} s", f"{busy / quiet:.1f}{mark}", *runs])
print(table(["", "idle", "busy", "ratio", "idle runs", "busy runs"], rows))
