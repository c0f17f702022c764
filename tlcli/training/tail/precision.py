"""The precision of training, and the exception that makes 16-bit training fast on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


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


@contextlib.contextmanager
def depthwise_in_fp32(network: nn.Module, device: torch.device) -> Iterator[None]:
    """On a CPU, run depthwise convolutions outside autocast.

    Their gradients in bfloat16 take up to 50 times as long as in float32 (torch 2.15, AVX-512: 53 instead of 9 ms for
    the weights of 1152 x 7 x 7, kernel 5; 64 instead of 1.4 ms for the input of 240 x 28 x 28, stride 2), which is
    more than everything else in such a network.
    """
    outside: list[contextlib.ExitStack] = []

    def enter(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outside.append(contextlib.ExitStack())
        outside[-1].enter_context(torch.autocast("cpu", enabled=False))
        return tuple(value.float() for value in inputs)

    def leave(*_: object) -> None:
        outside.pop().close()

    hooks = []
    for module in network.modules() if device.type == "cpu" else ():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            hooks.append(module.register_forward_pre_hook(enter))
            hooks.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
