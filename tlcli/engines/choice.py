"""Choose the device, precision, engine and batch size: resolve settings left at `auto`, and reject invalid ones.

Every choice is a pure function of the settings, the hardware and the number of images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tlcli import processes
from tlcli.engines.onnx_session import EXPORT_ENGINES
from tlcli.engines.openvino_session import check_bf16, check_openvino
from tlcli.errors import MachineError, UsageError

MIN_IMAGES_FOR_ONNX = 600
"""Number of images at which exporting the network and running it in ONNX Runtime takes about as long as running it in
torch (benchmarks/engine.py measures 562 for EfficientNet-Lite0 on two cores)."""


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """Where and how frozen prefixes run."""

    device: torch.device
    precision: str
    """`fp32`, `bf16` or `fp16`."""
    engine: str
    """`torch`, `onnx` or `openvino`."""
    requested: str
    """The user's `--engine`. Only with `auto` may torch replace ONNX Runtime."""


def choose_engine(device: str, precision: str, engine: str, *, images: int | None, frozen: bool = True) -> EngineChoice:
    """Resolve `--device`, `--precision` and `--engine`.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        engine: `auto`, `onnx`, `openvino` or `torch`.
        images: Number of images, cached or not, by which `auto` picks an engine; None exports the prefix in any case.
        frozen: Whether there is a frozen prefix to run; without one the engine is torch.

    Raises:
        UsageError: A combination that does not exist.
        MachineError: This machine does not have the requested device, OpenVINO is not installed, or it cannot compute
            in bf16 on this processor.
    """
    picked = pick_device(device)
    precision = pick_precision(precision, picked)
    return EngineChoice(
        device=picked,
        precision=precision,
        engine=pick_engine(engine, picked, precision, images) if frozen else "torch",
        requested=engine,
    )


def pick_device(device: str) -> torch.device:
    """Return the torch device for `--device`.

    `auto` is CUDA if available, else the CPU. Under torchrun each process gets its own GPU.

    Raises:
        MachineError: This machine does not have the requested device.
        UsageError: Several processes request the same GPU.
    """
    local_rank = processes.local_rank()
    if local_rank is not None and device in {"auto", "cuda"} and torch.cuda.is_available():
        return torch.device("cuda", local_rank)
    if local_rank is not None and device.startswith("cuda:"):
        raise UsageError(f"--device {device}: each process of torchrun uses its own GPU. Use --device cuda.")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = device.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise MachineError(
            f"--device {device}: this machine has {torch.cuda.device_count()} CUDA devices that torch can use. "
            "Use --device cpu (or auto)."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise MachineError("--device mps: torch finds no Apple GPU here. Use --device cpu (or auto).")
    return torch.device(device)


def uses_cuda(device: str) -> bool:
    """Return whether `pick_device` would return a CUDA device."""
    return torch.cuda.is_available() and device.partition(":")[0] in {"auto", "cuda"}


def pick_precision(precision: str, device: torch.device) -> str:
    """Return `fp32`, `bf16` or `fp16` for `--precision`; `auto` is fp16 on CUDA and fp32 elsewhere.

    Raises:
        UsageError: fp16 on a CPU, where it is slower than fp32 and no more accurate.
    """
    if precision == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 has no benefit on a CPU. Use fp32 (or bf16: faster, but less accurate).")
    return precision


def feature_numerics(precision: str, engine: str) -> str:
    """Return precision and, where it matters, engine as they enter the fingerprint of a feature cache.

    fp16 counts as fp32, because `open_runner` uses it only if its features agree with those in fp32. In bf16, torch and
    OpenVINO round other operations.
    """
    if precision == "bf16" and engine == "openvino":
        return "bf16-openvino"
    return "fp32" if precision == "fp16" else precision


def pick_engine(engine: str, device: torch.device, precision: str, images: int | None) -> str:
    """Return `onnx`, `openvino` or `torch` for `--engine`.

    `auto` is ONNX Runtime on a CPU in fp32 if there are enough images to make up for the export, else torch.

    Args:
        engine: `auto`, `onnx`, `openvino` or `torch`.
        device: Where the network runs.
        precision: `fp32`, `bf16` or `fp16`.
        images: Number of images; None if the network is exported in any case.

    Raises:
        UsageError: `onnx` or `openvino` on a device or in a precision that tlcli does not run it in.
        MachineError: OpenVINO is not installed, or it cannot compute in bf16 on this processor.
    """
    supported = device.type == "cpu" and precision == "fp32"
    in_bf16 = engine == "openvino" and device.type == "cpu" and precision == "bf16"
    if engine in EXPORT_ENGINES and not (supported or in_bf16):
        precisions = "fp32 or bf16" if engine == "openvino" else "fp32"
        raise UsageError(
            f"--engine {engine} runs on a CPU in {precisions}, not on {device} in {precision}. Use --engine torch."
        )
    if engine == "openvino":
        check_bf16() if in_bf16 else check_openvino()
    if engine != "auto":
        return engine
    return "onnx" if supported and (images is None or images >= MIN_IMAGES_FOR_ONNX) else "torch"


def pick_batch_size(batch_size: int | None, device: torch.device) -> int:
    """Return the requested batch size, else 256 on a GPU and 4 on a CPU, whose caches hold no larger batch."""
    return batch_size or (4 if device.type == "cpu" else 256)
