"""Measure how close cache-features comes to the limit of the machine in its steady state.

usage: python benchmarks/steady.py DATA [ROUNDS]      (default: 3)
The limit is cores / (core-seconds to decode an image + core-seconds for its forward pass), each measured alone,
alternating with the whole. To exclude startup, export and images that are decoded ahead, DATA is copied with bytes
appended, which gives four times as many distinct images, and only the middle half counts.
"""

import functools
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from copies import copy_images
from measure import machine, table

from tlcli.backbones.cut import cut_at
from tlcli.backbones.zoo import load_backbone
from tlcli.commands.cache_features import cache_features
from tlcli.engines.onnx_export import load_or_export_onnx
from tlcli.engines.onnx_session import OnnxSession
from tlcli.features.backbone import make_preprocessing
from tlcli.images.worker import DecodeOptions, read_image
from tlcli.processes import cores
from tlcli.progress import Silent
from tlcli.settings import CacheFeaturesSettings, CacheSettings

ALONE = 300
"""Number of images for measuring decoding and the network alone."""


class Clock(Silent):
    """Records the time and the number of finished images."""

    def __init__(self):
        self.ticks = []

    @contextmanager
    def task(self, name, total, unit="images"):
        """Count finished images."""
        done = 0

        def advance(more):
            nonlocal done
            done += more
            self.ticks.append((time.monotonic(), done))

        yield advance


def steady(folder):
    """Return the images per second of the middle half."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as cache:
        cache_features(CacheFeaturesSettings(data=folder, cache=CacheSettings(directory=Path(cache))), clock)
    total = clock.ticks[-1][1]
    middle = [tick for tick in clock.ticks if total / 4 <= tick[1] <= 3 * total / 4]
    (start, first), (end, last) = middle[0], middle[-1]
    return (last - first) / (end - start)


data, rounds = sys.argv[1], int((sys.argv[2:] or ["3"])[0])
backbone = load_backbone(classes=10)
preprocessing = make_preprocessing(backbone, "crop")
prefix = cut_at(backbone, "all").prefix
session = OnnxSession(load_or_export_onnx(prefix, preprocessing, None))
with tempfile.TemporaryDirectory() as folder:
    paths = copy_images(data, folder, 4)
    read = functools.partial(read_image, order=DecodeOptions(preprocessing=preprocessing))
    found = {"decode": [], "forward": [], "steady": []}
    for _ in range(rounds):
        started = time.process_time()
        pixels = [read(str(path)).pixels for path in paths[:ALONE]]
        found["decode"].append((time.process_time() - started) / ALONE)
        batch = np.frombuffer(b"".join(pixels), np.uint8).reshape(-1, *preprocessing.shape)
        started = time.process_time()
        session.run(batch)
        found["forward"].append((time.process_time() - started) / ALONE)
        found["steady"].append(steady(Path(folder)))
decode, forward, rate = (statistics.median(values) for values in found.values())
limit = cores() / (decode + forward)
print(machine(), end="\n\n")
print(
    table(
        ["decoding, one core", "network, one core", "limit", "steady state", "share", "runs"],
        [
            [
                f"{1000 * decode:.2f} ms",
                f"{1000 * forward:.2f} ms",
                f"{limit:.0f}/s",
                f"{rate:.0f}/s",
                f"{rate / limit:.2f}",
                ", ".join(f"{value:.0f}" for value in found["steady"]),
            ]
        ],
    )
)
