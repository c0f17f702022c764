"""Fixtures: a feature cache, and a run to continue from."""

from __future__ import annotations

from pathlib import Path

import pytest
from continued_runs import CUT
from tail_runs import settings_for


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One feature cache for all tests of trainable layers."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="session")
def tuned(photos, shared_folder):
    """A run of a small network on `photos` with tuned layers behind `CUT`, which squashes images."""

    def train(root: Path) -> None:
        from tlcli.commands.finetune import finetune

        network, training = {"backbone": "test_efficientnet", "weights": "none", "fit": "squash"}, {"epochs": 3}
        finetune(settings_for(photos, root / "run", root / "cache", CUT, network=network, training=training))

    return shared_folder("tuned", train) / "run"
