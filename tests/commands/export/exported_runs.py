"""Runs to export, what they predict, and how an export is used without tlcli."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from tlcli.commands.finetune import finetune
from tlcli.datasets.dataset import open_dataset
from tlcli.exporting.comparison_images import load_comparison_images
from tlcli.inference.predictor import Predictor
from tlcli.runs.run import load_run
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, TrainingSettings

ROOT = Path(__file__).parents[3]
IMAGE = "sample_data/to_predict/street_1.jpg"
HOSTILE = {"disc": 'a"b|c`d`', "square": "<script>\\u0041 *x*", "stripes": "=näh #[x](y)"}
WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
"""
"""Code that blocks the import of some packages."""


def train(photos, folder, *, balance=False, epochs=None, **network):
    """Train a run at `folder/run`."""
    finetune(
        FinetuneSettings(
            data=photos,
            out=folder / "run",
            network=NetworkSettings(**network),
            training=TrainingSettings(epochs=epochs),
            compute=ComputeSettings(workers=1),
            cache=CacheSettings(directory=folder / "cache"),
            balance=balance,
        )
    )
    return folder / "run"


def expected(run, data, count=7):
    """Return the pixels of some images, and the probabilities that the run predicts."""
    run = load_run(run)
    images = load_comparison_images(run, open_dataset(data, classes=run.classes), compare=count, calibrate=0, workers=1)
    predictor = Predictor(run, device="cpu", workers=1)
    return images.pixels, predictor.probabilities(predictor.model.run(images.pixels).logits)


def normalized(pixels, about):
    how = about["preprocessing"]
    return ((pixels / 255 - how["mean"]) / how["std"]).transpose(0, 3, 1, 2).astype(np.float32)


def about_onnx(session):
    return {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}


def with_changed_weight(function):
    """Wrap a function that returns a network, and change one weight of its head."""

    def changed(*arguments, **options):
        found = function(*arguments, **options)
        network = getattr(found, "model", found)
        with torch.no_grad():
            list(network.parameters())[-1][0] += 0.05
        return found

    return changed
