"""Measure whether augmenting and training overlap: an epoch should take as long as the slower one, not the sum.

usage: python benchmarks/overlap.py DATA [LAYER] [IMAGES]      (default: blocks.5.3 and 600)
One process augments and one thread trains, so that each has its own core on a machine with two. DATA is that of
finetune.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

from tlcli.backbones.zoo import load_backbone
from tlcli.datasets.dataset import open_dataset
from tlcli.datasets.splits import SplitDataset
from tlcli.engines.choice import choose_engine
from tlcli.engines.torch_engine import autocast
from tlcli.features.backbone import place_backbone
from tlcli.features.cache import FeatureCache
from tlcli.features.extraction import Extraction
from tlcli.features.extractor import freeze_at
from tlcli.images.loader import ImageLoader
from tlcli.progress import Silent
from tlcli.settings.augmentation import PRESETS
from tlcli.settings.network import DEFAULT_BACKBONE
from tlcli.training.tail.batches import batches_of
from tlcli.training.tail.optimizer import make_optimizer, set_learning_rate
from tlcli.training.tail.precision import depthwise_in_fp32, training_precision
from tlcli.training.tail.sources import StreamedSource
from tlcli.training.usable_images import UsableImages

data, layer, count = [*sys.argv[1:], *["blocks.5.3", "600"][len(sys.argv) - 2 :]]
torch.set_num_threads(1)
samples = [s for s in open_dataset(Path(data)).samples if s.split in {None, "train"}][: int(count)]
paths, labels = [s.path for s in samples], torch.tensor([s.label for s in samples])
with tempfile.TemporaryDirectory() as cache:
    network = place_backbone(
        load_backbone(DEFAULT_BACKBONE, "pretrained", classes=int(labels.max()) + 1, size=None, seed=0),
        choose_engine("cpu", "auto", "auto", images=len(paths)),
        fit="crop",
        intensity=None,
        cache=FeatureCache(Path(cache), Silent()),
        report=Silent(),
    )
    extractor = freeze_at(network, layer, workers=1, augmentation=PRESETS["strong"])
batches = batches_of(len(paths), 32, seed=0, epoch=0)


class InMemoryLoader:
    """A loader of images that are already decoded."""

    def __init__(self, images):
        self._images = images

    def load_views(self, requests):
        """Yield the image of each request, ignoring the view."""
        return (self._images[path] for path, _ in requests)


def usable_images(digests):
    """All images, in train."""
    split = SplitDataset(
        samples=tuple(samples),
        digests=tuple(digests),
        keys=tuple(digest.hex() for digest in digests),
        cross_validated=False,
    )
    return UsableImages(dataset=None, extraction=Extraction(digests=list(digests)), duplicates=None, splits=split)


def train(loader, digests):
    """Return the seconds of one epoch, and how many of them were spent waiting."""
    tail, device = extractor.cut.tail.train(), network.device
    optimizer = make_optimizer(network.backbone.model, weight_decay=0.05, layer_decay=0.9)
    set_learning_rate(optimizer, 1e-4)
    source = StreamedSource(extractor, loader, usable_images(digests), range(len(paths)), lambda epoch: epoch + 1)
    started = time.monotonic()
    with depthwise_in_fp32(tail, device):
        for rows, inputs in source.load(batches, 0):
            with autocast(training_precision("auto", device), device):
                logits = tail(inputs)
            torch.nn.functional.cross_entropy(logits.float(), labels[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
    return time.monotonic() - started, source.waited


with ImageLoader(extractor.decode_options(augmented=True), workers=1, ahead=96) as loader:
    loader.start()
    started = time.monotonic()
    images = list(loader.load_views((path, 1) for path in paths))
    augmenting = time.monotonic() - started
    digests = [image.digest or b"" for image in images]
    ready = InMemoryLoader(dict(zip(paths, images, strict=True)))
    train(ready, digests)  # the first epoch selects kernels
    alone, _ = train(ready, digests)
    together, waited = train(loader, digests)
print(f"augmenting alone {augmenting:.1f} s, training alone {alone:.1f} s, sum {augmenting + alone:.1f} s")
print(f"together {together:.1f} s, {together / max(augmenting, alone):.2f} times the slower one; waited {waited:.1f} s")
