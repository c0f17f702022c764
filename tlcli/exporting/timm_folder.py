"""A run's network as a folder for timm and model hubs: weights, `config.json`, and a model card."""

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
from tlcli.exporting.comparison import ExportedNetwork
from tlcli.exporting.library_errors import library_errors
from tlcli.exporting.network_input import normalize
from tlcli.images.batch import Floats, Pixels
from tlcli.inference.calibration import calibrated_probabilities
from tlcli.runs.directory import CONFIG_FILE, WEIGHTS_FILE
from tlcli.runs.run import Run
from tlcli.storage.files import as_json
from tlcli.storage.folders import AtomicFolder

CARD_FILE = "README.md"
CROP_MODES = {"crop": "center", "pad": "border", "squash": "squash"}
"""timm's name for each way to make an image square."""


def check_timm_support(run: Run) -> None:
    """Check that timm has the run's architecture.

    Raises:
        UsageError: The architecture is one of tlcli's own.
    """
    if run.config.get("architecture") in NON_TIMM:
        raise UsageError(
            f"{run.info['backbone']} is tlcli's own network, which timm does not provide. Use --format onnx or torch."
        )


def timm_folder(out: Path) -> AtomicFolder:
    """Return the folder at `out`."""
    others = re.compile("|".join(map(re.escape, (WEIGHTS_FILE, CARD_FILE))))
    return AtomicFolder(path=out, option="--out", writer="tlcli export", index=CONFIG_FILE, others=others)


def timm_folder_config(run: Run, metadata: dict[str, object]) -> dict[str, Any]:
    """Return the run's `config.json`, with its preprocessing in timm's terms, and the metadata under `tlcli`."""
    fit = run.preprocessing.fit
    transform = {"crop_mode": CROP_MODES[fit]} | ({} if fit == "crop" else {"crop_pct": 1.0})
    return run.config | {"pretrained_cfg": run.config["pretrained_cfg"] | transform, "tlcli": metadata}


def write_timm_files(folder: Path, run: Run, config: dict[str, Any], card: str) -> None:
    """Write all files of the folder.

    Args:
        folder: An empty folder to write into.
        run: The run whose weights are written.
        config: From `timm_folder_config`.
        card: The text of the model card.
    """
    (folder / WEIGHTS_FILE).write_bytes(run.content(WEIGHTS_FILE))
    (folder / CONFIG_FILE).write_bytes(as_json(config))
    (folder / CARD_FILE).write_bytes(card.encode("utf8", "backslashreplace"))


def load_timm_folder(folder: Path, run: Run) -> ExportedNetwork:
    """Load the folder with timm, ready to run.

    Raises:
        ArtifactError: timm cannot load it.
    """
    # timm parses the path as a URL, so one with a # or a ? needs another name.
    with (
        library_errors("timm cannot load this network", "Try --format onnx or torch."),
        silence_exporters(),
        tempfile.TemporaryDirectory(prefix="tlcli-") as temporary,
    ):
        link = Path(temporary) / "model"
        link.symlink_to(folder.absolute())
        network = timm.create_model(f"local-dir:{link}", pretrained=True).eval()

    def predict(pixels: Pixels) -> tuple[Floats, Floats]:
        with torch.inference_mode():
            logits: Floats = network(torch.from_numpy(normalize(pixels, run.preprocessing))).numpy()
        return logits, calibrated_probabilities(logits, run.temperature, run.log_prior)

    return predict
