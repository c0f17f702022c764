"""Fixtures: decoder processes that start as in tlcli, and numbered images."""

import subprocess

import pytest
from PIL import Image

from tlcli.images import loader


@pytest.fixture(scope="module", autouse=True)
def started_decoders(decoder_servers):
    """Start decoder processes instead of forking them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "subprocess", subprocess)
        yield


@pytest.fixture
def numbered(tmp_path):
    """Paths of 60 images, each of its own color; every seventh is large and therefore slow."""
    paths = []
    for number in range(60):
        size = (1500, 1200) if number % 7 == 3 else (20, 16)
        Image.new("RGB", size, (number, 255 - number, 0)).save(tmp_path / f"{number}.png")
        paths.append(str(tmp_path / f"{number}.png"))
    return paths
