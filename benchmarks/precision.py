"""Compare cold `cache-features` and `predict` in fp32, today's default, with OpenVINO in fp32 and in bf16.

usage: python benchmarks/precision.py DATA [ROUNDS]

Whole processes in interleaved rounds, 5 by default, each with an empty cache. bf16 needs OpenVINO and a processor with
instructions for it. `predict` uses runs that were trained on DATA before; `finetune` refuses bf16 if labels differ.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from measure import TLCLI, alternate, machine, print_ratios

data, rounds = sys.argv[1], int((sys.argv[2:] or ["5"])[0])
openvino = ["--engine", "openvino"]
ENGINES = {"default": [], "OpenVINO fp32": openvino, "OpenVINO bf16": [*openvino, "--precision", "bf16"]}


def process(*arguments):
    """Run a tlcli command."""
    subprocess.run([*TLCLI, *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL)


def extract(options):
    """Run `cache-features` with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        process("cache-features", data, "--cache", cache, *options)


with tempfile.TemporaryDirectory() as folder:
    runs = {name: str(Path(folder) / name.replace(" ", "-")) for name in ENGINES}
    for name, options in ENGINES.items():
        process("finetune", data, "--out", runs[name], "--cache", f"{folder}/cache", *options)

    def predict(name):
        """Run `predict` of all images with the engine that the run was trained with."""
        process("predict", runs[name], data, *(openvino if ENGINES[name] else []), "--out", "-")

    extracted = alternate({name: lambda given=given: extract(given) for name, given in ENGINES.items()}, rounds)
    predicted = alternate({name: lambda name=name: predict(name) for name in ENGINES}, rounds)
print(machine("openvino"))
for command, taken in (("cache-features, cold", extracted), ("predict", predicted)):
    print(f"\n{command}, {Path(data).name}:\n")
    print_ratios(taken, base="default")
