"""Runs that continue from a run (`--backbone RUN`), and datasets with other classes."""

from __future__ import annotations

import shutil
from pathlib import Path

from tlcli.commands.finetune import finetune
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, TrainingSettings

CUT = "blocks.3"
"""Where the run of the fixture `tuned` is cut."""


def continue_from(run, data, out, cache, freeze="all", **changes):
    """Run `finetune DATA --backbone RUN`, with two epochs of later layers if some are trained."""
    training = {} if freeze == "all" else {"epochs": 2} | changes.pop("training", {})
    report = changes.pop("report", None)
    return finetune(
        FinetuneSettings(
            data=data,
            out=out,
            network=NetworkSettings(**{"backbone": str(run), "freeze": freeze} | changes.pop("network", {})),
            training=TrainingSettings(**training),
            compute=ComputeSettings(workers=1),
            cache=CacheSettings(directory=cache),
            **changes,
        ),
        report,
    )


def with_class(photos: Path, data: Path, draw, name: str = "noise", images: int = 12) -> Path:
    """Copy the photos, and add a class of drawn noise."""
    shutil.copytree(photos, data)
    for number in range(images):
        draw(data / name / f"{number:02d}.png", seed=100 + number, size=(96, 80))
    return data
