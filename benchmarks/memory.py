"""Measure the anonymous memory of training on a cache that may be larger than memory.

usage: python benchmarks/memory.py DATA [LAYER] [VIEWS]     (default: blocks.2.1 and 15 views, 3 GB for 3,000 images)
Fills the cache with augmented views, trains one epoch on them, and samples RssAnon of the training process.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

data, layer, views = [*sys.argv[1:], *["blocks.2.1", "15"][len(sys.argv) - 2 :]]
options = ["--freeze", layer, "--augment", "light", "--views", views, "--quiet"]


def rss_anon(process):
    """Return RssAnon in GB; 0 after the process has ended."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / 1e6 for line in lines if line.startswith("RssAnon")), 0.0)


subprocess.run([sys.executable, "-m", "tlcli", "cache-features", data, *options], check=True)
with tempfile.TemporaryDirectory() as folder:
    command = [
        sys.executable,
        "-m",
        "tlcli",
        "finetune",
        data,
        "--out",
        Path(folder) / "run",
        "--epochs",
        "1",
        *options,
    ]
    process, peak = subprocess.Popen(command), 0.0
    while process.poll() is None:
        peak = max(peak, rss_anon(process))
        time.sleep(0.2)
print(f"exit {process.returncode}, peak RssAnon of training {peak:.2f} GB")
listed = subprocess.run([sys.executable, "-m", "tlcli", "cache", "list"], check=True, capture_output=True, text=True)
print(listed.stdout)
