"""A depthwise convolution whose gradients are fast on a CPU.

Shapes: B images, C channels, H x W pixels of a map, K x K weights of a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SMALL_KERNEL = 3
"""Up to this size, torch's gradient of a depthwise kernel is fast."""
SMALL_MAP = 256
"""In fp32, the gradient of a larger kernel is faster as a correlation for maps of up to this many pixels."""


class DepthwiseConvolution(torch.autograd.Function):
    """A depthwise convolution whose gradients avoid the operations that oneDNN has no fast kernel for.

    These are, on two cores with AVX-512 and bfloat16 instructions (milliseconds for 32 images, torch 2.14): the
    gradient of a kernel larger than 3 x 3 (1152 x 7 x 7, kernel 5: 25 in fp32 and 110 in bf16, as a correlation 8), and
    that of the input in bf16 if the stride is not 1 (672 x 14 x 14: 178, in fp32 2.5).
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - anything may be stored in it
        maps: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        """Convolve maps [B, C, H, W] with weight [C, 1, K, K], in bf16 if autocast is to it, else in fp32."""
        half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        dtype = torch.bfloat16 if half else torch.float32
        ctx.types = maps.dtype, weight.dtype, None if bias is None else bias.dtype
        maps, weight = maps.to(dtype, memory_format=torch.channels_last), weight.to(dtype)
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        bias = None if bias is None else bias.to(dtype)
        return _conv(maps, weight, bias, stride=stride, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return the gradients of maps, weight, and bias."""
        maps, weight = ctx.saved_tensors
        map_type, weight_type, bias_type = ctx.types
        gradient = gradients[0].to(maps.dtype, memory_format=torch.channels_last)
        of_maps = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_maps = _gradient_of_maps(gradient, maps, weight, ctx.stride, ctx.padding).to(map_type)
        if ctx.needs_input_grad[1]:
            of_weight = _gradient_of_weight(gradient, maps, weight, ctx.stride, ctx.padding).to(weight_type)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 2, 3)).to(bias_type)
        return of_maps, of_weight, of_bias, None, None


def _gradient_of_maps(
    gradient: Tensor, maps: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    kernel = weight.shape[2:]
    if stride == (1, 1) and all(pad < size for pad, size in zip(padding, kernel, strict=True)):
        rest = (kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1])
        return _conv(gradient, weight.flip(2, 3), None, padding=rest, groups=len(weight))
    return _torch_gradient(gradient.float(), maps.float(), weight.float(), stride, padding, 0)


def _gradient_of_weight(
    gradient: Tensor, maps: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    if max(weight.shape[2:]) <= SMALL_KERNEL:
        return _torch_gradient(gradient, maps, weight, stride, padding, 1)
    if maps.dtype == torch.float32 and gradient[0, 0].numel() > SMALL_MAP:
        return _torch_gradient(gradient, maps, weight, stride, padding, 1)
    # Correlate the maps of each image with the gradient: B * C channels, each with a kernel of the gradient's size.
    images, channels = maps.shape[:2]
    rows = maps.permute(2, 3, 0, 1).reshape(1, *maps.shape[2:], images * channels).permute(0, 3, 1, 2)
    kernels = gradient.reshape(images * channels, 1, *gradient.shape[2:])
    found = _conv(rows, kernels, None, padding=padding, dilation=stride, groups=images * channels)
    height, width = weight.shape[2:]
    return found[0, :, :height, :width].reshape(images, channels, height, width).float().sum(dim=0).unsqueeze(1)


def _torch_gradient(
    gradient: Tensor,
    maps: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    which: int,
) -> Tensor:
    """Return torch's own gradient of the maps (0) or of the weight (1)."""
    wanted = [which == 0, which == 1, False]
    found: Sequence[Tensor] = torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), wanted
    )
    return found[which]


def _conv(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int,
) -> Tensor:
    """Convolve, whatever autocast and modes are entered."""
    with torch._C.DisableTorchFunction(), torch.autocast("cpu", enabled=False):
        return functional.conv2d(maps, weight, bias, stride, padding, dilation, groups)
