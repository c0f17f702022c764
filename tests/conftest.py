"""What several tests share: drawn pictures, a reporter that remembers, and a system that refuses."""

import contextlib
import os
import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlcli.images.preprocess import Preprocessing
from tlcli.progress import Silent

NOBODY = 65534


class Remembering(Silent):
    """A reporter that keeps what it was told."""

    def __init__(self):
        self.notes = []
        self.warnings = []

    def note(self, text):
        self.notes.append(text)

    def warn(self, text):
        self.warnings.append(text)


@pytest.fixture
def report():
    return Remembering()


@pytest.fixture(scope="session")
def draw():
    """Draw a picture of seeded noise around a seeded colour; the path's suffix is the format."""

    def draw_picture(path, seed=0, *, size=(20, 14), **options):
        generator = np.random.default_rng(seed)
        colour = generator.integers(40, 216, 3)
        noise = generator.integers(-40, 40, (size[1], size[0], 3))
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((colour + noise).astype(np.uint8)).save(path, **options)
        return path

    return draw_picture


@pytest.fixture(scope="session")
def small():
    """The whole picture, squashed to 16 x 16 RGB."""
    return Preprocessing(
        height=16,
        width=16,
        channels=3,
        fit="squash",
        crop_fraction=1.0,
        interpolation="bilinear",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


@pytest.fixture
def unprivileged():
    """A context in which file permissions count, even where the tests run as root."""

    @contextlib.contextmanager
    def drop():
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return drop


@pytest.fixture
def public_path():
    """A temporary folder that everybody may enter; pytest's own is private to who runs the tests."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def full_disk():
    """A context in which no file can grow beyond some bytes, as on a full disk."""

    @contextlib.contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit
