"""Fixtures: a working directory for trackers."""

from __future__ import annotations

import pytest
from tracked_runs import local


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory that all libraries write to."""
    import wandb

    monkeypatch.chdir(tmp_path)
    for name, value in local(tmp_path).items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    wandb.teardown()  # otherwise it keeps the environment
