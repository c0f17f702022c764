"""Measure which engine runs the frozen layers fastest, and from how many images on exporting them pays off.

usage: python benchmarks/engine.py [BACKBONE] [FREEZE]      (default: tf_efficientnet_lite0 and all)
Random pixels, no decoding: the network alone, with the batch size and threads of cache-features. Medians of five.
"""

import statistics
import sys
import time

import numpy as np
import torch

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.choice import pick_batch_size
from tlcli.engines.onnx_engine import OnnxRunner
from tlcli.engines.onnx_export import load_or_export_onnx
from tlcli.engines.torch_engine import TorchRunner
from tlcli.features.backbone import make_preprocessing

IMAGES = 256

name, freeze = [*sys.argv[1:], *["tf_efficientnet_lite0", "all"][len(sys.argv) - 1 :]]
backbone = load_backbone(name, "none", classes=10, size=None, seed=0)
prefix = cut_at(backbone, freeze).prefix
preprocessing = make_preprocessing(backbone, "crop")
started = time.monotonic()
onnx = OnnxRunner(load_or_export_onnx(prefix, preprocessing, None))
export = time.monotonic() - started
plain = TorchRunner(prefix, preprocessing, device=torch.device("cpu"), precision="fp32")
size = pick_batch_size(None, torch.device("cpu"))
pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, *preprocessing.shape), np.uint8)
batches = [pixels[start : start + size] for start in range(0, IMAGES, size)]
seconds = {"torch": [], "onnx": []}
for _ in range(6):
    for engine, runner in (("torch", plain), ("onnx", onnx)):
        started = time.monotonic()
        features = np.concatenate(list(runner.map(batches)))
        seconds[engine].append(time.monotonic() - started)
rates = {engine: IMAGES / statistics.median(taken[1:]) for engine, taken in seconds.items()}  # the first warms up
print("| engine | images per second |\n|---|---|")
for engine, rate in rates.items():
    print(f"| {engine} | {rate:.0f} |")
gained = 1 / rates["torch"] - 1 / rates["onnx"]
verdict = f"pays off from {export / gained:,.0f} images on" if gained > 0 else "never pays off"
print(f"\nThe export takes {export:.1f} s and {verdict} ({name}, {freeze}, {torch.get_num_threads()} threads).")
