"""Compare cache-features, finetune and predict with other tools: whole processes, measured alternately.

usage: python benchmarks/peers.py features|finetune DATA ROUNDS NAME=COMMAND...
COMMAND of another tool is run by a shell. With `features` its whole duration counts, with `finetune` the
`train_s=SECONDS` that it prints. tlcli starts with an empty cache every time.
"""

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from measure import TLCLI, alternate, machine, print_ratios, run

task, data, rounds, peers = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
notes = []


def ours(arguments):
    """Return a function that runs tlcli with an empty cache and notes its figures."""

    def once():
        with tempfile.TemporaryDirectory() as folder:
            where = [word.replace("FOLDER", folder) for word in arguments]
            seconds, printed = run([*TLCLI, *where, "--cache", f"{folder}/cache", "--json", "--quiet"])
            found = json.loads(printed)
            notes.append({key: found[key] for key in ("images_per_second", "test", "seconds") if key in found})
        return seconds

    return once


def peer(command):
    """Return a function that runs another tool and returns its duration, or its own figure for training."""

    def once():
        seconds, printed = run(["bash", "-c", command])
        notes.append(printed.strip().splitlines()[-1])
        return float(re.search(r"train_s=([\d.]+)", printed)[1]) if task == "finetune" else seconds

    return once


def predicting():
    """Train a run; return its folder and a function that predicts every image of DATA with it."""
    folder = tempfile.mkdtemp()
    run([*TLCLI, "finetune", data, "--out", f"{folder}/run", "--quiet"])
    images = [str(path) for path in Path(data).iterdir() if path.is_dir()]

    def once():
        seconds, printed = run(
            [*TLCLI, "predict", f"{folder}/run", *images, "--out", f"{folder}/rows.csv", "--overwrite", "--json"]
        )
        notes.append({"predict": json.loads(printed)["images_per_second"]})
        return seconds

    return folder, once


contestants, folder = {}, None
if task == "features":
    contestants["tlcli cache-features"] = ours(["cache-features", data])
    folder, contestants["tlcli predict"] = predicting()
else:
    contestants["tlcli finetune"] = ours(["finetune", data, "--out", "FOLDER/run"])
contestants |= {name: peer(command) for name, command in (pair.split("=", 1) for pair in peers)}
taken = alternate(contestants, rounds)
if folder:
    shutil.rmtree(folder)
print(machine(), end="\n\n")
print_ratios(taken, base=next(iter(contestants)))
print()
for note in notes:
    print(f"    {note}")
