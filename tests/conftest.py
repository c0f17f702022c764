"""Shared fixtures: drawn images, a trained run, a recording reporter, and system limits (permissions, full disk)."""

import contextlib
import fcntl
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_server import DecoderServers
from PIL import Image, ImageDraw

from tlcli.images.preprocess import Preprocessing
from tlcli.progress import Silent

# Shared modules whose assertions explain a failure as those in tests do.
pytest.register_assert_rewrite("cut_networks", "stored_features", "tail_trainers")

UNPRIVILEGED_USER = 65534

SharedFolder = Callable[[str, Callable[[Path], object]], Path]


class RecordingReporter(Silent):
    """A reporter that keeps its notes and warnings."""

    def __init__(self):
        self.notes = []
        self.warnings = []

    def note(self, text):
        self.notes.append(text)

    def warn(self, text):
        self.warnings.append(text)


@pytest.fixture(scope="session", autouse=True)
def decoder_servers():
    """Fork decoder processes in all tests except `tests/images`, which test their start."""
    servers = DecoderServers()
    with pytest.MonkeyPatch.context() as patch:
        servers.install(patch)
        yield servers
    servers.close()


@pytest.fixture(scope="session", autouse=True)
def exported_once(shared_folder: SharedFolder):
    """Export each network to ONNX, which takes seconds, once per test run; tlcli checks each export again.

    `tests/engines`, which tests the exporter, does without.
    """
    if "torch" not in sys.modules:  # no test of this run can export
        yield None
        return
    from torch.fx import GraphModule

    from tlcli.engines import onnx_export
    from tlcli.features.fingerprint import weights_digest

    export = onnx_export._export

    def export_once(network, pixels, outputs):
        graphs = [module.code for module in network.modules() if isinstance(module, GraphModule)]
        about = f"{weights_digest(network)} {network} {graphs} {pixels.shape} {outputs}"

        def save(folder: Path) -> None:
            (folder / "model.onnx").write_bytes(export(network, pixels, outputs))

        name = f"exported-{hashlib.sha256(about.encode()).hexdigest()}"
        return (shared_folder(name, save) / "model.onnx").read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_export, "_export", export_once)
        yield export


@pytest.fixture
def report():
    return RecordingReporter()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> SharedFolder:
    """Create a folder once per test run: `shared_folder(name, create)` calls `create(folder)` in one xdist worker only.

    The other workers wait for it and use the same files, so tests must not change them.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def shared(name: str, create: Callable[[Path], object]) -> Path:
        folder, done = root / f"shared-{name}", root / f"shared-{name}.done"
        with (root / f"shared-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                create(folder)
                done.touch()
        return folder

    return shared


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
def largest(shared_folder: SharedFolder) -> Path:
    """A PNG with the maximum number of pixels, transparent (the most memory): decoding it takes seconds."""

    def save(folder: Path) -> None:
        Image.new("P", (2**14, 2**14)).save(folder / "largest.png", transparency=0, compress_level=1)

    return shared_folder("largest", save) / "largest.png"


@pytest.fixture(scope="session")
def small():
    """Preprocessing that squashes the whole image to 16 x 16 RGB."""
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
    """A context manager under which file permissions apply, even if the tests run as root."""

    @contextlib.contextmanager
    def drop():
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(UNPRIVILEGED_USER)
        try:
            yield
        finally:
            os.seteuid(0)

    return drop


@pytest.fixture
def public_path():
    """A temporary folder that every user can enter; pytest's own is private to the user who runs the tests."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def full_disk():
    """A context manager that limits the size of files in bytes, as a full disk does."""

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
    """A finished run on `photos`, the cache it used, and the dictionary that `finetune` returned."""

    run: Path
    cache: Path
    info: dict[str, Any]


def draw_shape(shape: str, generator: np.random.Generator) -> Image.Image:
    """Draw a disc, a square, or stripes at a random position on a noisy background."""
    background = generator.integers(0, 120, 3)
    pixels = np.clip(background + generator.normal(0, 12, (80, 96, 3)), 0, 255).astype(np.uint8)
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


def draw_photos(root: Path) -> None:
    generator = np.random.default_rng(0)
    for shape in ("disc", "square", "stripes"):
        (root / "photos" / shape).mkdir(parents=True)
        for number in range(15):
            draw_shape(shape, generator).save(root / "photos" / shape / f"{number:02d}.jpg", quality=92)


@pytest.fixture(scope="session")
def photos(shared_folder: SharedFolder) -> Path:
    """Three classes of fifteen small drawn JPEGs. Not to be changed: copy them."""
    return shared_folder("drawn", draw_photos) / "photos"


@pytest.fixture(scope="session")
def trained(photos: Path, shared_folder: SharedFolder) -> TrainedRun:
    """The default backbone, at 64 pixels for speed, trained once for all tests that need a run."""

    def train(root: Path) -> None:
        from tlcli.commands.finetune import finetune
        from tlcli.settings import CacheSettings, FinetuneSettings, NetworkSettings

        info = finetune(
            FinetuneSettings(
                data=photos,
                out=root / "run",
                network=NetworkSettings(size=64),
                cache=CacheSettings(directory=root / "cache"),
            )
        )
        (root / "info.json").write_text(json.dumps(info))

    root = shared_folder("trained", train)
    return TrainedRun(run=root / "run", cache=root / "cache", info=json.loads((root / "info.json").read_text()))


MEASURED = """
import sys
from tlcli.cli.main import run
code = run(sys.argv[1:])
# Not getrusage: a new process inherits its parent's maximum.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def measured():
    """Run a tlcli command in a new process; return the finished process and its peak memory in kB without children."""

    def run(*arguments, **environment):
        command = [sys.executable, "-c", MEASURED, *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, check=False, env=os.environ | {"MALLOC_ARENA_MAX": "1"} | environment
        )
        return done, int(done.stderr.split()[-1])

    return run
