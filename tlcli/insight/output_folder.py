"""The folder that `inspect` writes. Torch-free."""

from __future__ import annotations

import re
from pathlib import Path

from tlcli.storage.folders import AtomicFolder

PAGE, PATCHES, FILTERS = "inspect.html", "units.jsonl", "filters.png"

SHEET = r"layer-\d+-[\w.-]*\.png"
"""Names of the layers' images."""


def sheet_name(number: int, layer: str) -> str:
    """The file of a layer's image."""
    return f"layer-{number:02d}-{re.sub(r'[^A-Za-z0-9_.-]', '_', layer)[:80]}.png"


def inspect_folder(out: Path) -> AtomicFolder:
    """The folder at `out`."""
    others = re.compile("|".join((re.escape(PAGE), re.escape(FILTERS), SHEET)))
    return AtomicFolder(path=out, option="--out", writer="tlcli inspect", index=PATCHES, others=others)
