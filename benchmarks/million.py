"""Measure predict on a million paths: the time to the first rows on disk, the speed, and whether memory stays constant.

usage: python benchmarks/million.py [PATHS]      (default: 1000000)
Uses hard links to 1,000 images of 32 x 32 pixels, and a run of LeNet-5. Memory is that of the main process.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import TLCLI, machine, table
from PIL import Image


def draw(folder):
    """Write 1,000 images in two classes: dark and bright noise."""
    generator = np.random.default_rng(0)
    for number in range(1000):
        path = folder / ("bright" if number % 2 else "dark") / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        low = 128 if number % 2 else 0
        Image.fromarray(generator.integers(low, low + 128, (32, 32, 3)).astype(np.uint8)).save(path)
    return sorted(folder.rglob("*.jpg"))


def memory(process):
    """Return VmHWM and RssAnon in MB; None after the process has ended."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return None
    found = {line.split(":")[0]: int(line.split()[1]) / 1e3 for line in lines if line.endswith("kB")}
    return (found["VmHWM"], found["RssAnon"]) if "VmHWM" in found else None


def size_of(path):
    """Return the size of a file in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
with tempfile.TemporaryDirectory() as name:
    root = Path(name)
    originals = draw(root / "train")
    network = ["--backbone", "lenet5", "--weights", "none", "--cache", root / "cache", "--quiet"]
    subprocess.run([*TLCLI, "finetune", root / "train", "--out", root / "run", *network], check=True)
    for number in range(count):
        path = root / "inbox" / f"{number // 1000:04d}" / f"{number:07d}.jpg"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.hardlink_to(originals[number % 1000])
    started, first, seen = time.monotonic(), None, []
    out = root / "rows.csv"
    process = subprocess.Popen([*TLCLI, "predict", root / "run", root / "inbox", "--out", out, "--quiet"])
    while process.poll() is None:
        now = time.monotonic() - started
        if first is None and size_of(root / ".rows.csv.partial") > 1000:
            first = now
        if found := memory(process):
            seen.append((now, *found))
        time.sleep(0.05 if first is None else 1)
    seconds = time.monotonic() - started
    with out.open() as file:
        written = sum(1 for _ in file) - 1
    assert (process.returncode, written) == (0, count)
early = next(entry for entry in seen if entry[0] >= first + 10)
late = seen[-2]
print(machine(), end="\n\n")
header = ["paths", "first rows after", "total", "paths per second", "10 s later", "at the end"]
cells = [f"{count:,}", f"{first:.1f} s", f"{seconds:.0f} s", f"{count / seconds:,.0f}"]
print(table(header, [[*cells, *(f"peak {hwm:.0f} MB, RssAnon {anon:.0f} MB" for _, hwm, anon in (early, late))]]))
