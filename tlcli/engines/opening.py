"""Open an engine for a frozen prefix: the one that was picked, or torch if that one cannot run the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tlcli.engines.exported_engine import ExportedRunner
from tlcli.engines.onnx_export import ExportError
from tlcli.engines.onnx_session import OnnxSession, UnloadableError
from tlcli.engines.openvino_session import OpenVinoSession
from tlcli.engines.runner import Runner
from tlcli.engines.torch_engine import TorchRunner
from tlcli.errors import UsageError
from tlcli.images.preprocess import Preprocessing
from tlcli.progress import Reporter

MIN_FP16_COSINE = 0.9999
"""Smallest cosine similarity between features in fp16 and in fp32, because both share one cache."""


def open_runner(
    prefix: Callable[[], nn.Module],
    preprocessing: Preprocessing,
    *,
    exported: Callable[[], bytes] | None,
    requested: str,
    device: torch.device,
    precision: str,
    report: Reporter,
) -> Runner:
    """Prepare an engine to run a prefix.

    Args:
        prefix: Returns the prefix, float32 [B, C, H, W], normalized, to features [B, ...]; called if torch runs it.
        preprocessing: How images enter the prefix.
        exported: Returns the prefix as an ONNX file, for ONNX Runtime or OpenVINO; None for torch.
        requested: The user's `--engine`. With `openvino`, OpenVINO runs the exported prefix, otherwise ONNX Runtime.
            Only with `auto` may torch replace them.
        device: Where torch runs.
        precision: `fp32`, or the autocast type `bf16` or `fp16` in torch; `fp32` or `bf16` in OpenVINO.
        report: Receives a message if torch replaces ONNX Runtime, or fp32 replaces fp16.

    Returns:
        The engine. Its `engine`, `device` and `precision` are those in use, which may differ from those requested.

    Raises:
        UsageError: The requested engine cannot run this network.
        MachineError: OpenVINO is not installed, or this processor cannot compute in bf16.
    """
    if exported is not None:
        try:
            model = exported()
            return ExportedRunner(OpenVinoSession(model, precision) if requested == "openvino" else OnnxSession(model))
        except (ExportError, UnloadableError) as error:
            if requested != "auto":
                raise UsageError(f"--engine {requested}: {error}. Use --engine torch.") from error
            report.note(f"Engine    torch: {error}")

    def torch_runner(precision: str) -> TorchRunner:
        return TorchRunner(prefix(), preprocessing, device=device, precision=precision, warn=report.warn)

    if precision == "fp16":
        half, full = torch_runner("fp16"), torch_runner("fp32")
        if _agree(half, full, preprocessing.shape):
            return half
        report.warn("features of this network in fp16 differ from those in fp32; continuing in fp32.")
        return full
    return torch_runner(precision)


def _agree(first: Runner, second: Runner, shape: tuple[int, int, int]) -> bool:
    """Compare the directions of two runners' features for two random images of shape [H, W, C]."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    ours, theirs = (runner.features(pixels).flatten(1) for runner in (first, second))
    cosines = functional.cosine_similarity(ours, theirs)
    return bool((cosines >= MIN_FP16_COSINE).all())  # False for NaN
