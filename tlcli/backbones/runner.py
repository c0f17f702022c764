"""What runs a frozen prefix: the engine that was picked, or torch where that can't take the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tlcli.backbones.engine import PrefixRunner, Runner
from tlcli.backbones.onnx_engine import ExportError, open_onnx
from tlcli.errors import UsageError
from tlcli.images.preprocess import Preprocessing
from tlcli.progress import Reporter


def open_runner(
    prefix: nn.Module,
    preprocessing: Preprocessing,
    *,
    engine: str,
    required: bool,
    device: torch.device,
    precision: str,
    directory: Callable[[], Path | None],
    report: Reporter,
) -> Runner:
    """Make a prefix ready to run.

    Args:
        prefix: float32 [B, C, H, W], normalised, to features [B, ...].
        preprocessing: How pictures enter it.
        engine: From `pick_engine`.
        required: Whether nothing else may take its place.
        device: Where to run.
        precision: `fp32`, or the autocast type `bf16` or `fp16`.
        directory: Gives the place for the prefix's export; None keeps it in memory.
        report: Told of an export, and where torch takes over.

    Raises:
        UsageError: the engine is `required` and can't take this network.
    """
    mean, std = preprocessing.mean, preprocessing.std
    if engine == "onnx":
        shape = (preprocessing.height, preprocessing.width, preprocessing.channels)
        try:
            return open_onnx(
                prefix,
                shape,
                mean,
                std,
                directory(),
                lambda: report.note("Export    the frozen part, for ONNX Runtime"),
            )
        except ExportError as error:
            if required:
                raise UsageError(f"--engine onnx: {error}. Use --engine torch.") from error
            report.note(f"Engine    torch: {error}")
    return PrefixRunner(prefix, mean, std, device=device, precision=precision)
