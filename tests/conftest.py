"""What several tests share: drawn images, a reporter that remembers, and a system that refuses."""

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

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
    """Draw an image of seeded noise around a seeded color; the path's suffix is the format."""

    def draw_image(path, seed=0, *, size=(20, 14), **options):
        generator = np.random.default_rng(seed)
        color = generator.integers(40, 216, 3)
        noise = generator.integers(-40, 40, (size[1], size[0], 3))
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((color + noise).astype(np.uint8)).save(path, **options)
        return path

    return draw_image


@pytest.fixture(scope="session")
def largest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many pixels as are decoded, and transparent, which takes most memory: a decoder is busy for seconds."""
    path = tmp_path_factory.mktemp("largest") / "largest.png"
    Image.new("P", (2**14, 2**14)).save(path, transparency=0, compress_level=1)
    return path


@pytest.fixture(scope="session")
def small():
    """The whole image, squashed to 16 x 16 RGB."""
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


@dataclass(frozen=True)
class TrainedRun:
    """A finished run on `photos`, the cache it used, and what finetune said."""

    run: Path
    cache: Path
    info: dict[str, Any]


def draw_shape(shape: str, generator: np.random.Generator) -> Image.Image:
    """A disc, a square, or stripes, somewhere on a noisy ground."""
    ground = generator.integers(0, 120, 3)
    pixels = np.clip(ground + generator.normal(0, 12, (80, 96, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    color = tuple(int(value) for value in generator.integers(130, 256, 3))
    left, top = (int(value) for value in generator.integers(12, 32, 2))
    side = int(generator.integers(28, 44))
    match shape:
        case "disc":
            pen.ellipse((left, top, left + side, top + side), fill=color)
        case "square":
            pen.rectangle((left, top, left + side, top + side), fill=color)
        case _:
            for offset in range(0, side, 8):
                pen.line((left, top + offset, left + side, top + offset), fill=color, width=3)
    return image


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of fifteen small drawn JPEGs."""
    root = tmp_path_factory.mktemp("drawn") / "photos"
    generator = np.random.default_rng(0)
    for shape in ("disc", "square", "stripes"):
        (root / shape).mkdir(parents=True)
        for number in range(15):
            draw_shape(shape, generator).save(root / shape / f"{number:02d}.jpg", quality=92)
    return root


@pytest.fixture(scope="session")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """The default backbone, at 64 pixels for speed, trained once for all tests that need a run."""
    from tlcli.commands.finetune import finetune
    from tlcli.settings import CacheSettings, FinetuneSettings, NetworkSettings

    root = tmp_path_factory.mktemp("trained")
    info = finetune(
        FinetuneSettings(
            data=photos,
            out=root / "run",
            network=NetworkSettings(size=64),
            cache=CacheSettings(directory=root / "cache"),
        )
    )
    return TrainedRun(run=root / "run", cache=root / "cache", info=info)


MEASURED = """
import sys
from tlcli.cli.main import run
code = run(sys.argv[1:])
# Not getrusage, whose figure a new process takes over from the one that started it.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def measured():
    """Run a tlcli command in a process of its own: how it ended, and its peak memory in kilobytes (children apart)."""

    def run(*arguments, **environment):
        command = [sys.executable, "-c", MEASURED, *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, check=False, env=os.environ | {"MALLOC_ARENA_MAX": "1"} | environment
        )
        return done, int(done.stderr.split()[-1])

    return run
