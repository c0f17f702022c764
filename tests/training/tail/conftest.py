"""Fixtures: searches that keep a tail whatever chance says."""

from __future__ import annotations

import pytest

from tlcli.training.tail.search_progress import SearchProgress


@pytest.fixture
def always_kept(monkeypatch):
    """Keep each tail with a lower loss, however small the difference."""
    monkeypatch.setattr(SearchProgress, "_is_better", lambda self, result: result.loss < self.tried[self.best]["loss"])


@pytest.fixture
def last_kept(monkeypatch):
    """Keep each tail, however bad."""
    monkeypatch.setattr(SearchProgress, "_is_better", lambda self, result: True)
