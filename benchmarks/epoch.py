"""Measure how much faster a training epoch of a tail is with a warm cache than without a cache.

usage: python benchmarks/epoch.py DATA [LAYER]        (default LAYER: blocks.5)
Both runs train the same tail for two epochs, one after the other; the second epochs are compared.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

data, layer = sys.argv[1], (sys.argv[2:] or ["blocks.5"])[0]


def seconds_of_epochs(*options):
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "tlcli", "finetune", data, "--freeze", layer, "--epochs", "2", "--out", run]
        subprocess.run([*command, *options, "--quiet"], check=True)
        return [json.loads(line)["seconds"] for line in (run / "metrics.jsonl").read_text().splitlines()]


subprocess.run([sys.executable, "-m", "tlcli", "cache-features", data, "--freeze", layer, "--quiet"], check=True)
cached, uncached = seconds_of_epochs(), seconds_of_epochs("--no-cache")
print(f"epoch of the tail after {layer}: cached {cached[1]:.1f} s, uncached {uncached[1]:.1f} s")
print(f"ratio {uncached[1] / cached[1]:.1f}")
