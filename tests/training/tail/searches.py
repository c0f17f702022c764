"""Searches for a depth on a few images, and reporters that interrupt them."""

from __future__ import annotations

from dataclasses import replace

from tlcli.datasets.dataset import open_dataset
from tlcli.progress import Silent
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, TrainingSettings
from tlcli.settings.augmentation import Augmentation
from tlcli.settings.network import DEFAULT_BACKBONE
from tlcli.training.head.class_weights import ClassWeighting
from tlcli.training.train import OpenedRun, train_classifier


class Stop(Exception):
    """An interruption."""


class Stopping(Silent):
    """A reporter that interrupts after some notes on the progress of training; None never does."""

    def __init__(self, after=None, start="  epoch"):
        self.left = after
        self.start = start

    def note(self, text):
        if text.startswith(self.start) and self.left is not None:
            if not self.left:
                raise Stop
            self.left -= 1


class Notes(Silent):
    """A reporter that keeps the notes."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def settings_for(data, cache, *, freeze="auto", backbone="lenet5", epochs=2, resume=False, **changes):
    return FinetuneSettings(
        data=data,
        out=cache / "run",
        resume=resume,
        network=NetworkSettings(backbone=backbone, weights="none", freeze=freeze),
        training=TrainingSettings(epochs=epochs, **changes),
        compute=ComputeSettings(batch_size=8, workers=1),
        augmentation=Augmentation(),
        cache=CacheSettings(directory=cache),
    )


def train(settings, directory, report=None):
    directory.mkdir(exist_ok=True)
    dataset = open_dataset(settings.data)
    opened = OpenedRun(
        settings=settings,
        out=directory,
        directory=directory,
        dataset=dataset,
        intensity=None,
        weighting=ClassWeighting(balance=settings.balance),
    )
    return train_classifier(opened, report or Silent(), lambda _: None)


def weights_of(classifier):
    return classifier.extractor.network.backbone.model.state_dict()


def pretrained(data, cache, **changes):
    """Settings of a search that starts from pretrained weights, on images small enough for a test."""
    settings = replace(settings_for(data, cache, backbone=DEFAULT_BACKBONE, epochs=1, **changes), group_by="none")
    return replace(settings, network=replace(settings.network, weights="pretrained", size=32))
