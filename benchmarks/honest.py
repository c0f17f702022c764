"""Compare the accuracy that `finetune` reports with the accuracy on other objects, for single images and for bursts.

usage: python benchmarks/honest.py DATA...      each has train and test, or train and validation, with class folders

A burst is several exposures of one photograph, which differ in crop, rotation, light, focus, noise and JPEG quality.
Folds of single images are evaluated on exposures of objects that they were trained on. Bursts and other objects, one
exposure of each, are drawn from all photographs. The single images are the training images of DATA, and their other
objects its test images. Features are kept in the default cache, or that of TLCLI_CACHE.
Environment: OBJECTS=300 EXPOSURES=7 SEED=0 draw other bursts. With few objects, compare the means of several draws: the
accuracy on 60 objects alone has a standard error of 6 points.
"""

import os
import random
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import machine, table
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from tlcli.commands.finetune import finetune
from tlcli.datasets.dataset import open_dataset
from tlcli.settings import FinetuneSettings

OBJECTS, EXPOSURES = int(os.environ.get("OBJECTS", "300")), int(os.environ.get("EXPOSURES", "7"))
OTHER_OBJECTS, SEED = 600, int(os.environ.get("SEED", "0"))
LONG_SIDE = 400
KINDS = {"single images": None, "bursts": "RGB", "gray bursts": "L"}
"""The mode of the exposures; None leaves the images as they are."""
OBJECT = r"object\d+"
"""Names the object in the path of an exposure."""


def expose(image, generator):
    """Return another exposure of an image."""
    between = generator.uniform
    image = image.rotate(between(-8, 8), Image.Resampling.BICUBIC)
    scale = between(0.75, 0.94)
    width, height = (round(side * scale) for side in image.size)
    left, top = (round(between(0, whole - side)) for whole, side in zip(image.size, (width, height), strict=True))
    image = image.crop((left, top, left + width, top + height))
    for enhancer, most in (ImageEnhance.Brightness, 0.4), (ImageEnhance.Contrast, 0.3), (ImageEnhance.Color, 0.3):
        image = enhancer(image).enhance(1 + between(-most, most))
    if generator.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(between(0.3, 1.5)))
    noise = np.random.default_rng(generator.getrandbits(32)).normal(0, between(0, 6), (*image.size[::-1], 1))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def write(samples, folder, mode, exposures):
    """Write FOLDER/CLASS/objectNUMBER_EXPOSURE.jpg."""
    generator = random.Random(SEED)
    for number, (path, label) in enumerate(samples):
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        image.thumbnail((LONG_SIDE, LONG_SIDE))
        (folder / label).mkdir(parents=True, exist_ok=True)
        for exposure in range(exposures):
            shown = image if mode is None else expose(image, generator).convert(mode)
            shown.save(folder / label / f"object{number:05d}_{exposure}.jpg", quality=generator.randint(60, 92))


def prepare(data, folder, mode):
    """Write the training and test images of one kind; numbers of test images begin again."""
    dataset = open_dataset(Path(data))
    other = "test" if dataset.has_split("test") else "validation"
    train, test = (
        [(sample.path, dataset.classes[sample.label]) for sample in dataset.samples if sample.split == split]
        for split in ("train", other)
    )
    if mode is not None:
        drawn = random.Random(SEED).sample(train + test, min(OBJECTS + OTHER_OBJECTS, len(train + test)))
        train, test = drawn[:OBJECTS], drawn[OBJECTS:]
    write(train, folder / "train", mode, 1 if mode is None else EXPOSURES)
    write(test, folder / "test", mode, 1)


def accuracies(folder, group_by):
    """Return the accuracy that `finetune` reports, the accuracy on other objects, and the groups that it found."""
    with tempfile.TemporaryDirectory() as out:
        info = finetune(FinetuneSettings(data=folder, out=Path(out) / "run", group_by=group_by))
    return info["validation"]["accuracy"], info["test"]["accuracy"], info["validation"]["groups"]


def measure(data, kind, mode):
    """Return a row of the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        prepare(data, folder, mode)
        reported, other, groups = accuracies(folder, None)
        single, other_single, _ = accuracies(folder, "none")
        objects, other_objects, _ = accuracies(folder, f"train.*({OBJECT})")
        paths = [path.name for path in (folder / "train").rglob("*.jpg")]
    numbers = len(paths), len({re.search(OBJECT, name)[0] for name in paths}), groups["groups"], groups["largest"]
    percent = [f"{100 * value:.1f} %" for value in (single, reported, objects, other, other_single, other_objects)]
    return [Path(data).name, kind, *numbers, *percent[:3], " / ".join(percent[3:])]


print(machine(), end="\n\n")
header = ["data", "kind", "images", "objects", "groups found", "largest"]
header += ["reported with `--group-by none`", "reported", "with the true groups", "on other objects"]
print(table(header, []))
for data in sys.argv[1:]:
    for kind, mode in KINDS.items():
        print(f"| {' | '.join(map(str, measure(data, kind, mode)))} |", flush=True)
