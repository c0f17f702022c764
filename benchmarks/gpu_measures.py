"""The measurements of gpu.py, each in a process of its own.

usage: python benchmarks/gpu_measures.py NAME DATA
Prints a JSON list for each figure: what was measured, images per second, and the duration. What tlcli does by default
is measured first; compiled prefixes, CUDA graphs, resizing on the device, and nvJPEG are alternatives to it.
"""

import itertools
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import TLCLI, run
from PIL import Image
from torch.nn import functional

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.datasets.dataset import open_dataset
from tlcli.engines.choice import pick_batch_size, pick_precision
from tlcli.engines.torch_engine import TorchRunner, autocast
from tlcli.features.backbone import make_preprocessing
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.processes import cores

DEVICE = os.environ.get("TLCLI_TEST_DEVICE", "cuda")
PHOTOGRAPHS, BATCHES = (16_384, 40) if DEVICE == "cuda" else (64, 2)
WEIGHTS = ["--weights", "none"]
"""Speed does not depend on the weights, which a bare machine lacks."""


def photographs(folder, distinct=256):
    """Write photographs of 400 x 534 pixels, each of `distinct` images many times, with different bytes at the end."""
    started = time.monotonic()
    generator = random.Random(0)
    sources = sorted((Path(__file__).resolve().parents[1] / "sample_data" / "pictures").rglob("*.jpg"))
    distinct = min(distinct, PHOTOGRAPHS)
    for number in range(distinct):
        source = sources[number % len(sources)]
        with Image.open(source) as opened:
            pixels = np.asarray(opened.convert("RGB").resize((400, 534), Image.Resampling.BICUBIC)).astype(np.float32)
        noise = np.random.default_rng(number).normal(0, generator.uniform(2, 8), pixels.shape)
        target = folder / source.parent.name / f"{number:05d}_0.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(target, quality=85)
        content = target.read_bytes()
        for copy in range(1, PHOTOGRAPHS // distinct):
            target.with_name(f"{number:05d}_{copy}.jpg").write_bytes(content + b"%d" % copy)
    show("photographs written", PHOTOGRAPHS, time.monotonic() - started)


def show(name, count, seconds):
    """Print a figure."""
    print(json.dumps([name, f"{count / seconds:,.0f}", f"{seconds:.1f} s"]), flush=True)


def timed(step, batches=BATCHES):
    """Return the seconds of some steps, after a few that select kernels."""
    for _ in range(3):
        step()
    synchronize()
    started = time.monotonic()
    for _ in range(batches):
        step()
    synchronize()
    return time.monotonic() - started


def synchronize():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


class Setup:
    """The default backbone with random weights, its prefix, and a batch of random pixels on the device."""

    def __init__(self):
        self.device = torch.device(DEVICE)
        backbone = load_backbone(weights="none", classes=10)
        self.preprocessing = make_preprocessing(backbone, "crop")
        self.precision, self.size = pick_precision("auto", self.device), pick_batch_size(None, self.device)
        prefix = cut_at(backbone, "all").prefix
        self.runner = TorchRunner(prefix, self.preprocessing, device=self.device, precision=self.precision)
        self.prefix = prefix
        shape = (self.size, *self.preprocessing.shape)
        self.pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        images = torch.from_numpy(self.pixels).to(self.device).permute(0, 3, 1, 2).float() / 255
        self.images = images.contiguous(memory_format=torch.channels_last)

    def forward(self, prefix=None):
        """Run the prefix, or a variant of it, on the batch."""
        with torch.inference_mode(), autocast(self.precision, self.device):
            return (self.prefix if prefix is None else prefix)(self.images)


def decoding(data):
    paths = [sample.path for sample in open_dataset(data).samples]
    with ImageLoader(DecodeOptions(preprocessing=Setup().preprocessing), workers=cores()) as loader:
        loader.start()
        started = time.monotonic()
        count = sum(image.pixels is not None for image in loader.load(paths))
        show(f"decoding alone, {cores()} processes", count, time.monotonic() - started)


def forward(data):
    del data
    setup = Setup()
    count = BATCHES * setup.size
    show(f"forward alone, {setup.precision}, {setup.size} per batch, pixels on the device", count, timed(setup.forward))
    list(setup.runner.map([setup.pixels] * 3))
    started = time.monotonic()
    list(setup.runner.map([setup.pixels] * BATCHES))
    show("the same, pixels over the bus, features back", count, time.monotonic() - started)


def compiled(data):
    del data
    setup = Setup()
    for mode in ("default", "max-autotune-no-cudagraphs") if DEVICE == "cuda" else ("default",):
        started = time.monotonic()
        prefix = torch.compile(setup.prefix, mode=mode)
        setup.forward(prefix)
        synchronize()
        first = time.monotonic() - started
        seconds = timed(lambda prefix=prefix: setup.forward(prefix))
        show(f"torch.compile of the prefix, {mode} (first batch {first:.0f} s)", BATCHES * setup.size, seconds)


def cuda_graph(data):
    del data
    setup = Setup()
    if DEVICE != "cuda":
        print("needs a GPU")
        return
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            setup.forward()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        setup.forward()
    show("CUDA graph of the prefix", BATCHES * setup.size, timed(graph.replay))


def resizing(data):
    del data
    setup = Setup()
    photographs = torch.randint(0, 256, (setup.size, 3, 534, 400), dtype=torch.uint8)
    photographs = photographs.pin_memory() if DEVICE == "cuda" else photographs

    def step():
        images = photographs.to(setup.device, non_blocking=True).float()
        return functional.interpolate(images, (342, 256), mode="bicubic", antialias=True, align_corners=False)

    show("400 x 534 pixels over the bus, resized on the device", BATCHES * setup.size, timed(step))


def nvjpeg(data):
    try:
        from torchcodec.decoders import decode_jpeg
    except ImportError:
        from torchvision.io import decode_jpeg
    samples = itertools.islice(itertools.cycle(open_dataset(data).samples), Setup().size)
    files = [torch.frombuffer(bytearray(Path(sample.path).read_bytes()), dtype=torch.uint8) for sample in samples]
    seconds = timed(lambda: decode_jpeg(files, device=DEVICE), max(2, BATCHES // 4))
    show(
        f"decode_jpeg of {decode_jpeg.__module__.split('.')[0]} on the device",
        max(2, BATCHES // 4) * len(files),
        seconds,
    )


def cache_features(data):
    with tempfile.TemporaryDirectory() as folder:
        options = ["--device", DEVICE, *WEIGHTS, "--cache", f"{folder}/cache", "--json", "--quiet"]
        seconds, printed = run([*TLCLI, "cache-features", data, *options])
        content = json.loads(printed)
        show("cache-features, its own figure", content["images"], content["seconds"])
        show("cache-features, whole process", content["images"], seconds)


def tails(data):
    train = len(open_dataset(data).samples)
    with tempfile.TemporaryDirectory() as folder:
        for freeze, options in (("blocks.4", []), ("blocks.4", ["--augment", "light"]), ("none", [])):
            out = ["--out", f"{folder}/run", "--overwrite", "--freeze", freeze, "--epochs", "2", "--group-by", "none"]
            shared = [
                "--device",
                DEVICE,
                *WEIGHTS,
                "--cache",
                f"{folder}/cache",
                "--validation-fraction",
                "0.1",
                "--quiet",
            ]
            run([*TLCLI, "finetune", data, *out, *options, *shared])
            lines = [json.loads(line) for line in Path(f"{folder}/run/metrics.jsonl").read_text().splitlines()]
            name = f"tail training, --freeze {freeze} {' '.join(options)}".strip()
            show(f"{name}, last epoch", round(0.9 * train), lines[-1]["seconds"])


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
