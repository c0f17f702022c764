"""What runs a frozen prefix: the engine that was picked, or torch where that can't take the network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tlcli.backbones.engine import PrefixRunner, Runner
from tlcli.backbones.onnx_engine import ExportError, OnnxRunner
from tlcli.backbones.session import UnloadableError
from tlcli.errors import UsageError
from tlcli.images.preprocess import Preprocessing
from tlcli.progress import Reporter


def open_runner(
    prefix: nn.Module,
    preprocessing: Preprocessing,
    *,
    exported: Callable[[], bytes] | None,
    required: bool,
    device: torch.device,
    precision: str,
    report: Reporter,
) -> Runner:
    """Make a prefix ready to run.

    Args:
        prefix: float32 [B, C, H, W], normalised, to features [B, ...].
        preprocessing: How pictures enter it.
        exported: Gives it as an ONNX file, for ONNX Runtime; None where torch was picked.
        required: Whether nothing but ONNX Runtime will do.
        device: Where to run.
        precision: `fp32`, or the autocast type `bf16` or `fp16`.
        report: Told where torch takes over.

    Raises:
        UsageError: ONNX Runtime is `required` and can't take this network.
    """
    if exported is not None:
        try:
            return OnnxRunner(exported())
        except (ExportError, UnloadableError) as error:
            if required:
                raise UsageError(f"--engine onnx: {error}. Use --engine torch.") from error
            report.note(f"Engine    torch: {error}")
    mean, std = preprocessing.mean, preprocessing.std
    return PrefixRunner(prefix, mean, std, device=device, precision=precision, warn=report.warn)
