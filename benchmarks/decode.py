"""How fast each way from a JPEG's bytes to the network's pixels is, and how far its pixels are from the reference's.

usage: python benchmarks/decode.py DATA [IMAGES]      (300 unless given)
One core. The reference decodes all pixels with Pillow and resizes them. Large images are sheets of 3,024 x 4,032
pixels pasted together from DATA's, as large as a phone's and with detail at every scale. Other decoders are measured
where they are installed: `pip install simplejpeg torchcodec`.
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
from measure import machine, table
from PIL import Image

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.datasets.dataset import open_dataset
from tlcli.engines.torch_engine import TorchRunner
from tlcli.images.decode import decode
from tlcli.images.preprocess import Preprocessing, fit_image, oversampling
from tlcli.training.head.l2_selection import select_holdout

NETWORK = Preprocessing(
    height=224,
    width=224,
    channels=3,
    fit="crop",
    crop_fraction=0.875,
    interpolation="bicubic",
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
)
SHEETS, SHEET, ROUNDS = 12, (3024, 4032), 5
SMALL = 50
"""Pixels of a network so small that photographs 400 pixels wide are decoded at half their size."""


def whole(data, network):
    """The reference."""
    return fit_image(decode(data, 3), network)


def ours(data, network):
    """What the decoding processes do."""
    return fit_image(decode(data, 3, functools.partial(oversampling, preprocessing=network)), network)


def simplejpeg(data, network):
    import simplejpeg

    return fit_image(Image.fromarray(simplejpeg.decode_jpeg(data, "RGB")), network)


def torchcodec(data, network):
    from torchcodec.decoders import decode_image

    return fit_image(Image.fromarray(decode_image(data).permute(1, 2, 0).numpy()), network)


def sheets(files):
    """Large images made of small ones."""
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
    """Rows of the table: the ways take turns."""
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
    """Test accuracy of the default backbone's head on the pixels of each way: DATA must bring its splits."""
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
        right = int((head.logits(sets["test"][0]).argmax(dim=1) == sets["test"][1]).sum())
        yield [way.__name__, f"{right} of {len(rows['test'])}"]


def batched(values, size):
    """Slices of a list."""
    return (values[start : start + size] for start in range(0, len(values), size))


data, count = sys.argv[1], int((sys.argv[2:] or ["300"])[0])
paths = sorted(path for path in Path(data).rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
files = [path.read_bytes() for path in islice(paths, 0, None, max(1, len(paths) // count))]
ways = [whole, ours] + [way for way in (simplejpeg, torchcodec) if importlib.util.find_spec(way.__name__)]
rows = list(measure("as they are, to 224", files, NETWORK, ways))
large = list(sheets(files))
for fit in ("crop", "pad", "squash"):
    rows += measure(
        f"12 megapixels, to 224, {fit}", large, replace(NETWORK, fit=fit), ways if fit == "crop" else ways[:2]
    )
small = replace(NETWORK, height=SMALL, width=SMALL)
rows += measure(f"as they are, to {SMALL}", files, small, ways[:2])
print(machine("simplejpeg", "torchcodec"), end="\n\n")
print(table(["images", "way", "core-time an image", "a second", "mean difference, levels", "worst image"], rows))
print(f"\nHeads on features of the default backbone at {SMALL} pixels, for which DATA's images are decoded small:\n")
print(table(["way", "test images right"], accuracies(data, small)))
