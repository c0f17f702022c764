"""Measure whole processes that have little to do: `--help`, one prediction, commands with a warm cache.

usage: python benchmarks/startup.py DATA [ROUNDS] [CHECKOUT]

All are compared with `import timm`. ROUNDS is 7 by default; CHECKOUT is the folder of another version of tlcli, whose
`finetune` runs beside this one's.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import TLCLI, alternate, machine, print_ratios

data, rounds, other = sys.argv[1], int((sys.argv[2:] or ["7"])[0]), (sys.argv[3:] or [None])[0]
with tempfile.TemporaryDirectory() as folder:
    run, cache = Path(folder) / "run", ["--cache", f"{folder}/cache"]
    finetune = [*TLCLI, "finetune", data, "--out", run, *cache, "--overwrite", "--quiet"]
    subprocess.run(finetune, check=True)
    image = next(path for path in sorted(Path(data).rglob("*")) if path.suffix.lower() in {".jpg", ".jpeg", ".png"})

    def process(command, **environment):
        """Return a function that runs a command and returns None, so that its duration counts."""
        variables = os.environ | environment

        def run_it():
            done = subprocess.run(command, check=False, capture_output=True, cwd=Path.cwd(), env=variables)
            if done.returncode not in {0, 3}:  # `check` ends with 3 where it found something
                sys.exit(f"{command} failed with {done.returncode}:\n{done.stderr.decode()[-2000:]}")

        return run_it

    contestants = {
        "import timm": process([sys.executable, "-c", "import timm"]),
        "tlcli --help": process([*TLCLI, "--help"]),
        "tlcli predict, one image": process([*TLCLI, "predict", run, image]),
        "tlcli predict --engine torch": process([*TLCLI, "predict", run, image, "--engine", "torch"]),
        "tlcli check, warm cache": process([*TLCLI, "check", data, *cache, "--quiet"]),
        "tlcli cache-features, warm cache": process([*TLCLI, "cache-features", data, *cache, "--quiet"]),
        "tlcli finetune, warm cache": process(finetune),
    }
    if other is not None:
        # Without the safe path, the current folder would come before PYTHONPATH.
        contestants["the other version's finetune"] = process(finetune, PYTHONPATH=other, PYTHONSAFEPATH="1")
    taken = alternate(contestants, rounds)
print(machine(), end="\n\n")
print_ratios(taken, base="import timm")
