"""What runs a frozen prefix: the engine that was picked, or torch where that can't take the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tlcli.engines.onnx_export import ExportError, OnnxRunner
from tlcli.engines.onnx_session import UnloadableError
from tlcli.engines.torch_engine import PrefixRunner, Runner
from tlcli.errors import UsageError
from tlcli.images.preprocess import Preprocessing
from tlcli.progress import Reporter

AGREEMENT = 0.9999
"""Cosine that features in fp16 have at least with those in fp32, whose cache they share."""


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
        prefix: float32 [B, C, H, W], normalized, to features [B, ...].
        preprocessing: How images enter it.
        exported: Gives it as an ONNX file, for ONNX Runtime; None where torch was picked.
        required: Whether nothing but ONNX Runtime will do.
        device: Where to run.
        precision: `fp32`, or the autocast type `bf16` or `fp16`.
        report: Told where torch takes over, or fp32.

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

    def in_torch(precision: str) -> PrefixRunner:
        mean, std = preprocessing.mean, preprocessing.std
        return PrefixRunner(prefix, mean, std, device=device, precision=precision, warn=report.warn)

    if precision == "fp16":
        fast, exact = in_torch("fp16"), in_torch("fp32")
        if _agree(fast, exact, preprocessing.shape):
            return fast
        report.warn("this network gives other features in fp16 than in fp32; going on in fp32.")
        return exact
    return in_torch(precision)


def _agree(one: Runner, other: Runner, shape: tuple[int, int, int]) -> bool:
    """Whether two runners give features of the same direction for some images of [H, W, C]."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    ours, theirs = (runner.features(pixels).flatten(1) for runner in (one, other))
    cosines = functional.cosine_similarity(ours, theirs)
    return bool((cosines >= AGREEMENT).all())  # no number is never larger
