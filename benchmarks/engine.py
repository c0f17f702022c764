"""Measure which engine runs the frozen layers fastest, and from how many images on exporting them pays off.

usage: python benchmarks/engine.py [BACKBONE] [FREEZE]      (default: tf_efficientnet_lite0 and all)
OpenVINO takes part if it is installed. Random pixels, no decoding: the network alone, with the batch size and threads
of cache-features. Medians of five, in elapsed and in processor time; on a busy machine, compare engines by the latter.
"""

import importlib.util
import statistics
import sys
import time

import numpy as np
import torch

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.engines.choice import pick_batch_size
from tlcli.engines.exported_engine import ExportedRunner
from tlcli.engines.onnx_export import load_or_export_onnx
from tlcli.engines.onnx_session import OnnxSession
from tlcli.engines.openvino_session import OpenVinoSession
from tlcli.engines.torch_engine import TorchRunner
from tlcli.features.backbone import make_preprocessing

IMAGES = 256

name, freeze = [*sys.argv[1:], *["tf_efficientnet_lite0", "all"][len(sys.argv) - 1 :]]
backbone = load_backbone(name, "none", classes=10, size=None, seed=0)
prefix = cut_at(backbone, freeze).prefix
preprocessing = make_preprocessing(backbone, "crop")
started = time.monotonic()
model = load_or_export_onnx(lambda: prefix, preprocessing, None)
runners = {"onnx": ExportedRunner(OnnxSession(model))}
export = time.monotonic() - started
opening = None
if importlib.util.find_spec("openvino"):
    started = time.process_time()
    runners["openvino"] = ExportedRunner(OpenVinoSession(model))
    opening = time.process_time() - started
runners["torch"] = TorchRunner(prefix, preprocessing, device=torch.device("cpu"), precision="fp32")
size = pick_batch_size(None, torch.device("cpu"))
pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, *preprocessing.shape), np.uint8)
batches = [pixels[start : start + size] for start in range(0, IMAGES, size)]
elapsed = {engine: [] for engine in runners}
processor = {engine: [] for engine in runners}
for _ in range(6):
    for engine, runner in runners.items():
        started, used = time.monotonic(), time.process_time()
        features = np.concatenate(list(runner.map(batches)))
        elapsed[engine].append(time.monotonic() - started)
        processor[engine].append(time.process_time() - used)
rates = {engine: IMAGES / statistics.median(taken[1:]) for engine, taken in elapsed.items()}  # the first warms up
print("| engine | images per second | images per second of processor time |\n|---|---|---|")
for engine, rate in rates.items():
    print(f"| {engine} | {rate:.0f} | {IMAGES / statistics.median(processor[engine][1:]):.0f} |")
gained = 1 / rates["torch"] - 1 / rates["onnx"]
verdict = f"pays off from {export / gained:,.0f} images on" if gained > 0 else "never pays off"
print(f"\nThe export takes {export:.1f} s and {verdict} ({name}, {freeze}, {torch.get_num_threads()} threads).")
if opening is not None:
    print(f"Opening OpenVINO takes {opening:.1f} s of processor time, with its import and comparison.")
