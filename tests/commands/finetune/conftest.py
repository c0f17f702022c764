"""Fixtures: a feature cache."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One feature cache for all tests of trainable layers."""
    return tmp_path_factory.mktemp("features")
