"""Datasets that `augment` writes, and their files."""

import csv
import hashlib
from pathlib import Path

from tlcli.commands.augment import augment
from tlcli.settings import AugmentSettings, ComputeSettings

ONE_WORKER = ComputeSettings(workers=1)


def augmented(data, out, report=None, **changes):
    return augment(AugmentSettings(data=data, out=out, **{"compute": ONE_WORKER} | changes), report)


def tree(root):
    """Return the bytes of every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def manifest(out):
    with (out / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def sha(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
