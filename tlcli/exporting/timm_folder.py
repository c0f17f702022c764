"""A run's network as timm and model hubs keep it: weights, `config.json`, and a model card."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch

from tlcli.backbones.build import NON_TIMM
from tlcli.engines.onnx_export import silence_exporters
from tlcli.errors import UsageError
from tlcli.exporting.comparison import Exported, Pixels, Values, normalized
from tlcli.exporting.errors import refusing
from tlcli.inference.calibration import calibrated_probabilities
from tlcli.runs.directory import CONFIG_FILE, WEIGHTS_FILE
from tlcli.runs.run import Run
from tlcli.storage.files import as_json
from tlcli.storage.folders import AtomicFolder

CARD = "README.md"
CROP_MODES = {"crop": "center", "pad": "border", "squash": "squash"}
"""What timm's transforms call each way to make an image square."""


def check_known(run: Run) -> None:
    """Refuse a network that timm doesn't have.

    Raises:
        UsageError: it is one of tlcli's own.
    """
    if run.config.get("architecture") in NON_TIMM:
        raise UsageError(
            f"{run.info['backbone']} is a network of tlcli's own that timm doesn't know. Use --format onnx or torch."
        )


def timm_folder(out: Path) -> AtomicFolder:
    """The folder at `out`."""
    others = re.compile("|".join(map(re.escape, (WEIGHTS_FILE, CARD))))
    return AtomicFolder(path=out, option="--out", writer="tlcli export", index=CONFIG_FILE, others=others)


def export_config(run: Run, about: dict[str, object]) -> dict[str, Any]:
    """The run's `config.json`, with the way images enter by timm's names, and the description under `tlcli`."""
    fit = run.preprocessing.fit
    entry = {"crop_mode": CROP_MODES[fit]} | ({} if fit == "crop" else {"crop_pct": 1.0})
    return run.config | {"pretrained_cfg": run.config["pretrained_cfg"] | entry, "tlcli": about}


def fill(folder: Path, run: Run, config: dict[str, Any], card: str) -> None:
    """Write all files."""
    (folder / WEIGHTS_FILE).write_bytes(run.content(WEIGHTS_FILE))
    (folder / CONFIG_FILE).write_bytes(as_json(config))
    (folder / CARD).write_bytes(card.encode("utf8", "backslashreplace"))


def run_timm_folder(folder: Path, run: Run) -> Exported:
    """What timm says, once it has loaded the folder.

    Raises:
        ArtifactError: it can't.
    """
    failing = refusing("timm can't load this network", "Try --format onnx or torch.")
    # timm takes the path for a URL, so one with a # or a ? in it needs another name.
    with failing, silence_exporters(), tempfile.TemporaryDirectory(prefix="tlcli-") as place:
        link = Path(place) / "model"
        link.symlink_to(folder.absolute())
        network = timm.create_model(f"local-dir:{link}", pretrained=True).eval()

    def answer(pixels: Pixels) -> tuple[Values, Values]:
        with torch.inference_mode():
            logits: Values = network(torch.from_numpy(normalized(pixels, run.preprocessing))).numpy()
        return logits, calibrated_probabilities(logits, run.temperature, run.log_prior)

    return answer
