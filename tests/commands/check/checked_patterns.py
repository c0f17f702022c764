"""Drawn patterns, and what `check` finds in them."""

import os

import numpy as np
from PIL import Image

from tlcli.commands.check import check
from tlcli.settings import CacheSettings, CheckSettings, NetworkSettings

CLASSES = ("checks", "dots", "stripes")


def pattern(name, seed, size=(96, 80)):
    """Draw checks, dots or stripes with random colors, periods and offsets."""
    generator = np.random.default_rng([seed, CLASSES.index(name)])
    down, across = np.mgrid[: size[1], : size[0]] + generator.uniform(0, 20, (2, 1, 1))
    period = generator.uniform(14, 22)
    match name:
        case "checks":
            on = (down // period + across // period) % 2 == 0
        case "dots":
            on = np.hypot(down % period - period / 2, across % period - period / 2) < period / 3
        case _:
            on = (across + generator.uniform(-0.3, 0.3) * down) % period < period / 2
    ground, ink = generator.integers(0, 100, 3), generator.integers(140, 250, 3)
    light = np.linspace(*generator.uniform(0.6, 1.1, 2), size[0])[
        None, :, None
    ]  # so that no two images are near duplicates
    pixels = np.where(on[..., None], ink, ground) * light + generator.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def save(image, path, quality=92):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=quality)
    return path


def checked(data, cache, report=None, size=64, **changes):
    settings = CheckSettings(
        data=data, network=NetworkSettings(size=size), cache=CacheSettings(directory=cache), **changes
    )
    return check(settings, report)


def found(result, data):
    """Return the findings by kind, as tuples of paths relative to DATA."""
    kinds = {}
    for finding in result.findings:
        names = [os.path.relpath(path, data) for path in (finding.path, finding.other_path) if path]
        kinds.setdefault(finding.kind, set()).add(tuple(names))
    return kinds


def content(root):
    """Return the bytes and modification time of every file below a folder."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}
