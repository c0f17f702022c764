"""The command in a report gives the settings of its run."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tlcli.cli.main import run
from tlcli.settings import (
    CacheSettings,
    ComputeSettings,
    FinetuneSettings,
    NetworkSettings,
    PathPatterns,
    TrainingSettings,
)
from tlcli.settings.augmentation import PRESETS, Augmentation
from tlcli.settings.command_line import finetune_command
from tlcli.storage.urls import parse_location

DATA = Path("/some folder/of 'mine'")


@pytest.mark.parametrize(
    "settings",
    [
        FinetuneSettings(data=DATA),
        FinetuneSettings(data=DATA, balance=True, group_by=r"(\d+)_", validation_fraction=0.3),
        FinetuneSettings(data=DATA, corrections=Path("/my labels/corrections.csv")),
        FinetuneSettings(data=DATA, corrections=parse_location("s3://bucket/corrections.csv")),
        FinetuneSettings(data=DATA, filters=PathPatterns(include=("-a", "*.jpg"), exclude=("*_mask.*", "it's"))),
        FinetuneSettings(
            data=DATA,
            network=NetworkSettings(
                backbone="resnet18", weights="a file.pth", size=96, fit="pad", intensity="0,4095", seed=7
            ),
            cache=CacheSettings(directory=Path("/my cache")),
        ),
        FinetuneSettings(
            data=DATA,
            network=NetworkSettings(freeze="none"),
            training=TrainingSettings(epochs=3, learning_rate=0.01, weight_decay=0.0, patience=2),
            compute=ComputeSettings(device="cpu", precision="bf16", engine="torch", batch_size=8, workers=3),
            cache=CacheSettings(enabled=False),
        ),
        FinetuneSettings(data=DATA, network=NetworkSettings(freeze="auto"), augmentation=PRESETS["none"]),
        FinetuneSettings(
            data=DATA, network=NetworkSettings(backbone="auto", size="auto", fit="auto"), augmentation="auto"
        ),
        FinetuneSettings(data=DATA, augmentation=PRESETS["strong"], training=TrainingSettings(views=4)),
        FinetuneSettings(
            data=DATA,
            network=NetworkSettings(freeze="blocks.5"),
            augmentation=Augmentation(rotate=7.5, flip_vertical=True, noise=3, color_shift=(-20, 0, 20)),
        ),
        FinetuneSettings(
            data=DATA, network=NetworkSettings(freeze="3"), augmentation=Augmentation(mirror=True, crop=0.25)
        ),
    ],
)
def test_the_command_gives_the_same_settings(settings, monkeypatch):
    received = []

    def remember(given, _):
        received.append(given)
        return {"images": {"failed": 0}}

    monkeypatch.setattr("tlcli.commands.finetune.finetune", remember)
    assert run([*shlex.split(finetune_command(settings))[1:], "--json"]) == 0
    assert received == [settings]


def test_output_and_overwrite_are_left_out():
    settings = FinetuneSettings(data=DATA, out=Path("run"), overwrite=True)
    assert finetune_command(settings) == finetune_command(replace(settings, out=None, overwrite=False))
