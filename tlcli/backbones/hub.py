"""Pretrained weights from the Hugging Face hub or an URL: what is already here, and a quick no where it is not."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from tlcli.errors import MachineError, UsageError

WEIGHT_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
PATIENCE_SECONDS = 5.0


def cached_weights(config: Mapping[str, Any]) -> Path | None:
    """The weights file of a pretrained_cfg in the hub's (or torch's) cache folder, if it is there. Reads no network.

    Args:
        config: timm's pretrained_cfg as a dictionary.
    """
    if repository := config.get("hf_hub_id"):
        from huggingface_hub.constants import HF_HUB_CACHE

        folder = Path(HF_HUB_CACHE) / f"models--{str(repository).partition('@')[0].replace('/', '--')}" / "snapshots"
        wanted = (config["hf_hub_filename"],) if config.get("hf_hub_filename") else WEIGHT_FILES
        found = [path for name in wanted for path in sorted(folder.glob(f"*/{name}")) if path.is_file()]
        if found:
            return found[0]
    if url := config.get("url"):
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
        return path if path.is_file() else None
    return None


def require_hub(name: str, config: Mapping[str, Any]) -> None:
    """Return when NAME's weights can be downloaded, else say at once that they can't.

    The hub's own client tries again for most of a minute before it gives up.

    Raises:
        UsageError: Nobody published weights of this network.
        MachineError: They exist, but the hub can't be reached.
    """
    if config.get("hf_hub_id"):
        from huggingface_hub.constants import ENDPOINT

        address = ENDPOINT
    elif config.get("url"):
        address = str(config["url"])
    else:
        raise UsageError(f"There are no pretrained weights of {name}. Give --weights none (random) or --weights FILE.")
    if not _answers(address):
        raise unreachable(name)


def _answers(address: str) -> bool:
    """Whether anything answers there, through the proxy of the environment if there is one."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    question = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "tlcli"})
    try:
        with urllib.request.urlopen(question, timeout=PATIENCE_SECONDS):
            return True
    except (OSError, ValueError, http.client.HTTPException):
        return False


def unreachable(name: str) -> MachineError:
    """The one line for weights that are neither here nor reachable."""
    return MachineError(
        f"The ImageNet weights of {name} are not on this machine and the hub can't be reached: give --weights FILE "
        "or --weights none, or run once online (HF_HOME names the folder where the hub keeps its files)."
    )
