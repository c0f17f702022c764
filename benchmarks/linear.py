"""Time and memory of cache-features from a thousand images to a hundred thousand: the first linear, the second flat.

usage: python benchmarks/linear.py DATA [IMAGES...]      (1000 10000 100000 unless given)
Whole processes on an empty cache. Peak memory is that of the main process: VmHWM, with what is mapped from the cache,
and RssAnon, without.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from copies import copy_images
from measure import TLCLI, machine, table


def memory(process):
    """VmHWM and RssAnon in GB; zeros when the process is gone."""
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
print(table(["images", "cold", "images a second", "again", "peak VmHWM", "peak RssAnon"], rows))
