from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw


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
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    colour = tuple(int(value) for value in generator.integers(130, 256, 3))
    left, top = (int(value) for value in generator.integers(12, 32, 2))
    side = int(generator.integers(28, 44))
    match shape:
        case "disc":
            pen.ellipse((left, top, left + side, top + side), fill=colour)
        case "square":
            pen.rectangle((left, top, left + side, top + side), fill=colour)
        case _:
            for offset in range(0, side, 8):
                pen.line((left, top + offset, left + side, top + offset), fill=colour, width=3)
    return picture


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
