"""Runs with trainable layers on small images."""

from __future__ import annotations

import json

from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, TrainingSettings

SIZE = 32


def settings_for(data, out, cache, freeze, *, network=None, training=None, **changes):
    """Return settings that train the default backbone on small images for one epoch."""
    return FinetuneSettings(
        data=data,
        out=out,
        network=NetworkSettings(**({"freeze": freeze, "size": SIZE} | (network or {}))),
        training=TrainingSettings(**({"epochs": 1} | (training or {}))),
        compute=changes.pop("compute", ComputeSettings(workers=1)),
        cache=CacheSettings(directory=cache) if cache else CacheSettings(enabled=False),
        **changes,
    )


def lines_of(run):
    """Return the lines of `metrics.jsonl` without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in line if name not in {"seconds", "waited"}} for line in lines]
