"""Measure how much faster a training epoch of a tail is with a warm cache than without a cache, or than in other code.

usage: python benchmarks/epoch.py DATA [LAYER [OTHER]]        (default LAYER: blocks.5)
Each run trains the same tail for two epochs, and the second epochs are compared. OTHER is a folder with the source of
another version: both versions then run three times each, in turn, with the cache, and the medians are compared.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

OWN = Path(__file__).resolve().parents[1]
data, layer = Path(sys.argv[1]).resolve(), (sys.argv[2:] or ["blocks.5"])[0]
other = Path(sys.argv[3]) if len(sys.argv) > 3 else None


def seconds_of_epochs(*options, source=OWN):
    environment = os.environ | {"PYTHONPATH": str(source.resolve()), "PYTHONSAFEPATH": "1"}  # not the current folder
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "tlcli", "finetune", data, "--freeze", layer, "--epochs", "2", "--out", run]
        subprocess.run([*command, *options, "--quiet"], check=True, env=environment)
        return [json.loads(line)["seconds"] for line in (run / "metrics.jsonl").read_text().splitlines()]


subprocess.run([sys.executable, "-m", "tlcli", "cache-features", data, "--freeze", layer, "--quiet"], check=True)
if other is not None:
    pairs = [(seconds_of_epochs()[1], seconds_of_epochs(source=other)[1]) for _ in range(3)]
    ours, theirs = (statistics.median(values) for values in zip(*pairs, strict=True))
    print(f"epoch of the tail after {layer}: {ours:.2f} s, other version {theirs:.2f} s, ratio {theirs / ours:.2f}")
else:
    cached, uncached = seconds_of_epochs(), seconds_of_epochs("--no-cache")
    print(f"epoch of the tail after {layer}: cached {cached[1]:.1f} s, uncached {uncached[1]:.1f} s")
    print(f"ratio {uncached[1] / cached[1]:.1f}")
