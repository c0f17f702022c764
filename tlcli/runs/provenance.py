"""The provenance of a run: data and package versions, for `run.json`. Torch-free."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from importlib.metadata import version

import tlcli

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "pyarrow")


def data_fingerprint(digests: Iterable[bytes | None]) -> str:
    """Hash a set of images, independent of their order, names, and labels; images without a digest are left out."""
    return hashlib.sha256(b"".join(sorted(digest for digest in digests if digest))).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    return {"tlcli": tlcli.__version__, "python": platform.python_version()} | {
        name: version(name) for name in PACKAGES
    }
