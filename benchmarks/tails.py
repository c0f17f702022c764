"""Compare an epoch of tail training, from the cache and with online augmentation, with fastai.

usage: python benchmarks/tails.py DATA FASTAI_PYTHON [STAGE]       (default: frozen up to blocks.5)
The second epochs are compared, including validation. fastai has no cache, so its epoch on images without augmentation
counts.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import TLCLI, machine, run, table

data, python, stage = [*sys.argv[1:], *["5"][len(sys.argv) - 3 :]]


def ours(*options):
    """Return the seconds of the second epoch of tlcli."""
    with tempfile.TemporaryDirectory() as folder:
        out = ["--out", f"{folder}/run", "--cache", f"{folder}/cache", "--epochs", "2", "--batch-size", "32", "--quiet"]
        subprocess.run([*TLCLI, "finetune", data, "--freeze", f"blocks.{stage}", *out, *options], check=True)
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[1])["seconds"]


def theirs(kind):
    """Return the seconds of the second epoch of fastai."""
    _, printed = run([python, str(Path(__file__).with_name("others") / "fastai_epoch.py"), data, stage, kind])
    return float(re.search(r"train_s=([\d.]+)", printed)[1])


print(machine(), end="\n\n")
print(table(["an epoch after blocks." + stage, "tlcli", "fastai", "times faster"], []))
for name, options, kind in (
    ("plain images, tlcli from its cache", (), "plain"),
    ("online augmentation", ("--augment", "light"), "augmented"),
):
    mine, peer = ours(*options), theirs(kind)
    print(f"| {name} | {mine:.1f} s | {peer:.1f} s | {peer / mine:.1f} |", flush=True)
