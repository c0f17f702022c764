"""The output folder of `inspect`. Must not import torch."""

from __future__ import annotations

import re
from pathlib import Path

from tlcli.storage.folders import AtomicFolder

PAGE, PATCHES, FILTERS = "inspect.html", "units.jsonl", "filters.png"

SHEET_PATTERN = r"layer-\d+-[\w.-]*\.png"
"""File names of the layers' PNGs."""


def sheet_name(number: int, layer: str) -> str:
    """Return the file name of a layer's PNG."""
    return f"layer-{number:02d}-{re.sub(r'[^A-Za-z0-9_.-]', '_', layer)[:80]}.png"


def inspect_folder(out: Path) -> AtomicFolder:
    """Describe the output folder at `out`, which is replaced only as a whole."""
    others = re.compile("|".join((re.escape(PAGE), re.escape(FILTERS), SHEET_PATTERN)))
    return AtomicFolder(path=out, option="--out", writer="tlcli inspect", index=PATCHES, others=others)
