"""The precision of training."""

from __future__ import annotations

import torch


def training_precision(precision: str, device: torch.device) -> str:
    """Return the precision of training. `auto` is a 16-bit autocast type that the hardware is fast at, else fp32.

    bfloat16 is preferred, since it needs no loss scaling. On a CPU it is only fast with native instructions.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return "bf16"
    return "fp32"
