"""Runs whose head alone is trained."""

from __future__ import annotations

from tlcli.settings import CacheSettings, FinetuneSettings, NetworkSettings


def settings_for(data, out, cache, **changes):
    network = NetworkSettings(size=64, **changes.pop("network", {}))
    return FinetuneSettings(data=data, out=out, network=network, cache=CacheSettings(directory=cache), **changes)
