"""Measure the speed of several ways to decode and resize JPEGs, and how far their pixels are from the reference.

usage: python benchmarks/decode.py DATA [IMAGES]      (default: 300)
Uses one core. The reference decodes all pixels with Pillow and resizes them. Large images are sheets of 3,024 x 4,032
pixels, the size of a phone's photographs, composed of the images in DATA to have detail at every scale. Other decoders
are measured if they are installed: `pip install simplejpeg torchcodec`.
"""

import functools
import importlib.util
import io
import statistics
import sys
import time
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from measure import NETWORK, machine, table
from PIL import Image

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.datasets.dataset import open_dataset
from tlcli.engines.torch_engine import TorchRunner
from tlcli.images.decode import decode
from tlcli.images.preprocess import fit_image, oversampling
from tlcli.training.head.l2_selection import select_holdout

SHEETS, SHEET, ROUNDS = 12, (3024, 4032), 5
SMALL = 50
"""Input size, in pixels, that is small enough for photographs 400 pixels wide to be decoded at half their size."""


def whole(data, network):
    """Decode all pixels with Pillow (the reference)."""
    return fit_image(decode(data, 3), network)


def ours(data, network):
    """Decode as the decoder processes do."""
    return fit_image(decode(data, 3, functools.partial(oversampling, preprocessing=network)), network)


def simplejpeg(data, network):
    import simplejpeg

    return fit_image(Image.fromarray(simplejpeg.decode_jpeg(data, "RGB")), network)


def torchcodec(data, network):
    from torchcodec.decoders import decode_image

    return fit_image(Image.fromarray(decode_image(data).permute(1, 2, 0).numpy()), network)


def sheets(files):
    """Yield large JPEGs composed of small ones."""
    images = cycle(files)
    for _ in range(SHEETS):
        sheet = Image.new("RGB", SHEET)
        for top in range(0, SHEET[1], 500):
            for left in range(0, SHEET[0], 400):
                sheet.paste(Image.open(io.BytesIO(next(images))).convert("RGB"), (left, top))
        file = io.BytesIO()
        sheet.save(file, "JPEG", quality=90)
        yield file.getvalue()


def measure(name, files, network, ways):
    """Yield rows of the table; the ways are measured alternately."""
    taken = {way.__name__: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            started = time.process_time()
            for data in files:
                way(data, network)
            taken[way.__name__].append((time.process_time() - started) / len(files))
    reference = [np.asarray(whole(data, network), np.int16) for data in files]
    for way in ways:
        differences = [
            float(np.abs(np.asarray(way(data, network), np.int16) - pixels).mean())
            for data, pixels in zip(files, reference, strict=True)
        ]
        seconds = statistics.median(taken[way.__name__])
        mean, worst = statistics.mean(differences), max(differences)
        yield [name, way.__name__, f"{1000 * seconds:.2f} ms", f"{1 / seconds:.0f}", f"{mean:.3f}", f"{worst:.3f}"]


def accuracies(data, network):
    """Yield the test accuracy of a head on the default backbone for two ways; DATA must have its own splits."""
    backbone = load_backbone(classes=10, size=network.width)
    prefix = cut_at(backbone, "all").prefix
    runner = TorchRunner(prefix, network, device=torch.device("cpu"), precision="fp32")
    samples = open_dataset(Path(data)).samples
    files = [Path(sample.path).read_bytes() for sample in samples]
    labels = torch.tensor([sample.label for sample in samples])
    rows = {split: [i for i, s in enumerate(samples) if s.split == split] for split in ("train", "validation", "test")}
    for way in (whole, ours):
        pixels = (np.stack([np.asarray(way(file, network)) for file in some]) for some in batched(files, 16))
        features = torch.from_numpy(np.concatenate(list(runner.map(pixels))))
        sets = {split: (features[found], labels[found]) for split, found in rows.items()}
        head = select_holdout(sets["train"], sets["validation"], classes=int(labels.max()) + 1).head
        correct = int((head.logits(sets["test"][0]).argmax(dim=1) == sets["test"][1]).sum())
        yield [way.__name__, f"{correct} of {len(rows['test'])}"]


def batched(values, size):
    """Yield slices of a list."""
    return (values[start : start + size] for start in range(0, len(values), size))


data, count = sys.argv[1], int((sys.argv[2:] or ["300"])[0])
paths = sorted(path for path in Path(data).rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
files = [path.read_bytes() for path in islice(paths, 0, None, max(1, len(paths) // count))]
ways = [whole, ours] + [way for way in (simplejpeg, torchcodec) if importlib.util.find_spec(way.__name__)]
rows = list(measure("original, to 224", files, NETWORK, ways))
large = list(sheets(files))
for fit in ("crop", "pad", "squash"):
    rows += measure(
        f"12 megapixels, to 224, {fit}", large, replace(NETWORK, fit=fit), ways if fit == "crop" else ways[:2]
    )
small = replace(NETWORK, height=SMALL, width=SMALL)
rows += measure(f"original, to {SMALL}", files, small, ways[:2])
print(machine("simplejpeg", "torchcodec"), end="\n\n")
print(
    table(["images", "way", "core time per image", "images per second", "mean difference, levels", "worst image"], rows)
)
print(f"\nHeads on features of the default backbone at {SMALL} pixels, for which images are decoded at reduced size:\n")
print(table(["way", "correct test images"], accuracies(data, small)))
