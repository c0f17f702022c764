"""Fixtures: labeling sessions that share a cache."""

from __future__ import annotations

import functools

import pytest
from sessions import flat_copy, serve_labels


@pytest.fixture(scope="session")
def label_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("label-cache")


@pytest.fixture(scope="session")
def labeling(label_cache):
    """Serve a session with `with labeling(source, out, ...) as client`; leaving it stops the server."""
    return functools.partial(serve_labels, cache=label_cache)


@pytest.fixture
def inbox(photos, tmp_path):
    return flat_copy(photos, tmp_path / "inbox")
