"""The folder that `inspect` writes: under its name it is whole or not there. Torch-free."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tlcli.errors import UsageError
from tlcli.files import naming, sync_directory

PAGE, PATCHES, FILTERS = "inspect.html", "units.jsonl", "filters.png"

SHEET = re.compile(r"layer-\d+-[\w.-]*\.png")
"""Names of the layers' pictures."""


def sheet_name(number: int, layer: str) -> str:
    """The file of a layer's picture."""
    return f"layer-{number:02d}-{re.sub(r'[^A-Za-z0-9_.-]', '_', layer)[:80]}.png"


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that can't be written, before anything is computed for it.

    Raises:
        UsageError: something is there that may not be replaced, or that `inspect` did not write.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; expected a folder, new or empty.")
    if not out.is_dir():
        return
    names = sorted(os.listdir(out))  # noqa: PTH208
    if names and not overwrite:
        raise UsageError(f"{out} is not empty. Choose another --out, or replace it with --overwrite.")
    if foreign := [name for name in names if name not in {PAGE, PATCHES, FILTERS} and not SHEET.fullmatch(name)]:
        raise UsageError(
            f"{out} holds {foreign[0]!r}, which tlcli inspect did not write, so it is not replaced. "
            "Choose another --out, or move that away."
        )


@contextlib.contextmanager
def new_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write into, which takes the name `out` when the block has ended well, and else is removed.

    Raises:
        UsageError: see `check_folder`, which is asked again at the end.
    """
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with naming(out):
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name[:50]}.", suffix=".tmp", dir=parent))
    try:
        umask = os.umask(0)
        os.umask(umask)
        staging.chmod(0o777 & ~umask)
        yield staging
        for path in staging.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(staging)
        check_folder(out, overwrite=overwrite)
        _take_place(staging, out)
        sync_directory(parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)  # what went wrong first is what is told
        raise


def _take_place(staging: Path, out: Path) -> None:
    """Give `staging` the name `out`; what was there stays until it is."""
    if not out.exists() or not os.listdir(out):  # noqa: PTH208 - an empty folder is replaced by the rename itself
        staging.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name[:50]}.", suffix=".tmp", dir=staging.parent))
    out.rename(old)
    try:
        staging.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
