"""The units that `inspect` shows."""

import json
from pathlib import Path

from tlcli.settings import ComputeSettings, InspectSettings


def lines(out: Path):
    return [json.loads(line) for line in (out / "units.jsonl").read_text(encoding="utf8").splitlines()]


def settings(data, out, **changes):
    return InspectSettings(
        network="detectors", data=data, out=out, compute=ComputeSettings(workers=1, device="cpu"), **changes
    )
