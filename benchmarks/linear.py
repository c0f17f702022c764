"""Measure cache-features on 1,000 to 100,000 images: time should be linear, and memory constant.

usage: python benchmarks/linear.py DATA [IMAGES...]      (default: 1000 10000 100000)
Measures whole processes with an empty cache. Peak memory is that of the main process: VmHWM includes the mapped cache,
RssAnon does not.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from copies import copy_images
from measure import TLCLI, machine, table


def memory(process):
    """Return VmHWM and RssAnon in GB; zeros after the process has ended."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0.0, 0.0
    found = {line.split(":")[0]: int(line.split()[1]) / 1e6 for line in lines if line.endswith("kB")}
    return found.get("VmHWM", 0.0), found.get("RssAnon", 0.0)


data, counts = sys.argv[1], [int(word) for word in sys.argv[2:]] or [1_000, 10_000, 100_000]
rows = []
for count in counts:
    with tempfile.TemporaryDirectory() as folder:
        copy_images(data, f"{folder}/data", images=count)
        started = time.monotonic()
        process = subprocess.Popen(
            [*TLCLI, "cache-features", f"{folder}/data", "--cache", f"{folder}/cache", "--quiet"]
        )
        peaks = [0.0, 0.0]
        while process.poll() is None:
            peaks = [max(pair) for pair in zip(peaks, memory(process), strict=True)]
            time.sleep(0.2)
        seconds = time.monotonic() - started
        warm = time.monotonic()
        subprocess.run(
            [*TLCLI, "cache-features", f"{folder}/data", "--cache", f"{folder}/cache", "--quiet"], check=True
        )
        warm = time.monotonic() - warm
    cells = [
        f"{count:,}",
        f"{seconds:.0f} s",
        f"{count / seconds:.0f}",
        f"{warm:.1f} s",
        *(f"{peak:.2f} GB" for peak in peaks),
    ]
    rows.append(cells)
    print(cells, process.returncode, file=sys.stderr)
print(machine(), end="\n\n")
print(table(["images", "cold", "images per second", "again", "peak VmHWM", "peak RssAnon"], rows))
