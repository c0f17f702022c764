"""Measure on a CUDA GPU: cache-features, its parts, timm's inference.py, and tail training.

usage: python benchmarks/gpu.py DATA [TIMM_COMMAND]
Reports images per second of decoding alone, of the forward pass alone (fp16, channels-last), of cache-features (its own
figure and the whole process), and of tail training after two layers. TIMM_COMMAND is run by a shell, for example timm's
inference.py with its best flags on the class folders of DATA, and its whole duration counts.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import TLCLI, machine, run, table

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.datasets.dataset import open_dataset
from tlcli.engines.choice import pick_batch_size, pick_precision
from tlcli.engines.torch_engine import TorchRunner
from tlcli.features.backbone import make_preprocessing
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.processes import cores

if not torch.cuda.is_available():
    sys.exit("no CUDA GPU: nothing was measured")
device, data = torch.device("cuda"), Path(sys.argv[1])
backbone = load_backbone(classes=10)
preprocessing = make_preprocessing(backbone, "crop")
paths = [sample.path for sample in open_dataset(data).samples]
rows = []


def add(name, count, seconds):
    """Add a row to the table, and show it at once."""
    rows.append([name, f"{count / seconds:,.0f}", f"{seconds:.1f} s"])
    print(*rows[-1], sep="  ", file=sys.stderr)


with ImageLoader(DecodeOptions(preprocessing=preprocessing), workers=cores()) as loader:
    loader.start()
    started = time.monotonic()
    good = [image.pixels for image in loader.load(paths) if image.pixels]
    add(f"decoding alone, {cores()} processes", len(good), time.monotonic() - started)
size, prefix = pick_batch_size(None, device), cut_at(backbone, "all").prefix
precision = pick_precision("auto", device)
runner = TorchRunner(prefix, preprocessing, device=device, precision=precision)
batch = np.frombuffer(bytearray().join(good[:size]), np.uint8).reshape(-1, *preprocessing.shape)
for _ in range(2):  # the first round selects kernels
    started = time.monotonic()
    list(runner.map([batch] * 40))
    taken = time.monotonic() - started
add(f"forward alone, {precision}, {len(batch)} per batch, pixels over the bus", 40 * len(batch), taken)
with tempfile.TemporaryDirectory() as folder:
    cache = ["--cache", f"{folder}/cache", "--json", "--quiet"]
    seconds, printed = run([*TLCLI, "cache-features", data, *cache])
    add("cache-features, its own figure", *(json.loads(printed)[key] for key in ("images", "seconds")))
    add("cache-features, whole process", len(paths), seconds)
    for freeze, options in (("blocks.4", []), ("blocks.4", ["--augment", "light"]), ("none", [])):
        out = ["--out", f"{folder}/run", "--overwrite", "--freeze", freeze, "--epochs", "3", *options]
        run([*TLCLI, "finetune", data, *out, *cache])
        lines = [json.loads(line) for line in Path(f"{folder}/run/metrics.jsonl").read_text().splitlines()]
        train = sum(sample.split in {None, "train"} for sample in open_dataset(data).samples)
        name = f"tail training, --freeze {freeze} {' '.join(options)}".strip()
        add(f"{name}, third epoch", train, lines[-1]["seconds"])
if len(sys.argv) > 2:
    seconds, _ = run(["bash", "-c", sys.argv[2]])
    add("timm's inference.py, whole process", len(paths), seconds)
print(f"{torch.cuda.get_device_name()}. {machine()}", end="\n\n")
print(table(["", "images per second", "duration"], rows))
