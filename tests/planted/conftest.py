"""Fixtures: a trace that no hostile file may leave, and a small run with its cache."""

from __future__ import annotations

import pytest
from hostile_files import NETWORK

from tlcli.cli.main import run


@pytest.fixture
def sentinel(tmp_path):
    """A path that hostile files try to create; the test fails if it exists afterwards."""
    path = tmp_path / "sentinel"
    yield path
    assert not path.exists(), "a hostile file was executed"


@pytest.fixture(scope="session")
def made(photos, shared_folder):
    """A small run and its cache. Not to be changed: copy them."""

    def train(folder):
        command = ["finetune", str(photos), "--out", str(folder / "run"), "--cache", str(folder / "cache"), *NETWORK]
        assert run([*command, "--quiet"]) == 0

    return shared_folder("planted", train)
