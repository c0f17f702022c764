"""Helpers of the benchmarks: alternating timing, medians, tables, a common preprocessing, and the machine."""

import os
import platform
import re
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tlcli.images.preprocess import Preprocessing

TLCLI = [sys.executable, "-m", "tlcli"]
NETWORK = Preprocessing(
    height=224,
    width=224,
    channels=3,
    fit="crop",
    crop_fraction=0.875,
    interpolation="bicubic",
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
)
"""The usual preprocessing of a network at 224 pixels."""


def machine(*packages):
    """Describe the machine, the versions and the command line."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = match[1] if (match := re.search(r"model name\s*: (.*)", info)) else platform.processor()
    versions = [f"{name} {_version(name)}" for name in ("torch", "timm", "onnxruntime", "pillow", *packages)]
    command = " ".join(["python", *(os.path.relpath(word) if Path(word).exists() else word for word in sys.argv)])
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {len(os.sched_getaffinity(0))} cores of {model}, Python "
        f"{platform.python_version()}, {', '.join(versions)}. `{command}`"
    )


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def run(command, **environment):
    """Run a command; return its seconds and its stdout."""
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(f"{command} failed with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seconds, done.stdout


def alternate(contestants, rounds):
    """Run several functions alternately.

    Returns:
        The figures of each function by name: its return value, or its duration in seconds if it returns None.
    """
    taken = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            started = time.monotonic()
            figure = contestant()
            taken[name].append(time.monotonic() - started if figure is None else figure)
    return taken


def table(header, rows):
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def print_ratios(taken, *, base, unit="s"):
    """Print a table of medians and their ratios to the median of `base`."""
    medians = {name: statistics.median(values) for name, values in taken.items()}
    rows = [
        [
            name,
            f"{medians[name]:.2f} {unit}",
            ", ".join(f"{value:.2f}" for value in values),
            f"{medians[name] / medians[base]:.2f}",
        ]
        for name, values in taken.items()
    ]
    print(table(["", "median", "runs", f"times {base}"], rows))


def read_features(path):
    """Return features float32 [N, D], labels and splits of a file of `tlcli cache-features DATA --export FILE`."""
    import numpy as np
    import pyarrow.parquet as pq

    found = pq.read_table(path)
    features = np.asarray(found["feature"].combine_chunks().flatten()).reshape(len(found), -1).astype(np.float32)
    return features, np.array(found["label"].to_pylist()), np.array(found["split"].to_pylist())
