"""Measure whole processes that have little to do: `--help`, one prediction, a finetune with a warm cache.

usage: python benchmarks/startup.py DATA [ROUNDS]      (default: 7 rounds), compared with `import timm`
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from measure import TLCLI, alternate, machine, print_ratios

data, rounds = sys.argv[1], int((sys.argv[2:] or ["7"])[0])
with tempfile.TemporaryDirectory() as folder:
    run, cache = Path(folder) / "run", ["--cache", f"{folder}/cache"]
    finetune = [*TLCLI, "finetune", data, "--out", run, *cache, "--overwrite", "--quiet"]
    subprocess.run(finetune, check=True)
    image = next(path for path in sorted(Path(data).rglob("*")) if path.suffix.lower() in {".jpg", ".jpeg", ".png"})

    def process(command):
        """Return a function that runs a command and returns None, so that its duration counts."""
        return lambda: subprocess.run(command, check=True, capture_output=True, cwd=Path.cwd()) and None

    taken = alternate(
        {
            "import timm": process([sys.executable, "-c", "import timm"]),
            "tlcli --help": process([*TLCLI, "--help"]),
            "tlcli predict, one image": process([*TLCLI, "predict", run, image]),
            "tlcli predict --engine torch": process([*TLCLI, "predict", run, image, "--engine", "torch"]),
            "tlcli finetune, warm cache": process(finetune),
        },
        rounds,
    )
print(machine(), end="\n\n")
print_ratios(taken, base="import timm")
