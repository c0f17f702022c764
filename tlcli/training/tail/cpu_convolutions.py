"""Convolutions for training on a CPU: folded BatchNorm, and fast gradients of depthwise convolutions.

Both give the same gradients as torch's own operations, up to rounding, in a fraction of the time.

Shapes: B images, C channels, H x W pixels of a map, K x K weights of a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

SMALL_KERNEL = 3
"""Up to this size, torch's gradient of a depthwise kernel is fast."""
SMALL_MAP = 256
"""In fp32, the gradient of a larger kernel is faster as a correlation for maps of up to this many pixels."""

Function = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class _Convolution:
    """The arguments of `conv2d`, by name."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    @classmethod
    def of(cls, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Convolution:
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        return cls(**dict(zip(names, args, strict=False)), **kwargs)

    @property
    def depthwise(self) -> bool:
        return self.weight.shape[1] == 1 and self.groups > 1

    def run(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve with another weight and bias."""
        if not self.depthwise:
            return functional.conv2d(self.input, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        stride, padding, dilation = (_pair(value) for value in (self.stride, self.padding, self.dilation))
        if stride and padding and dilation == (1, 1) and self.groups == len(weight):
            maps: Tensor = _Depthwise.apply(self.input, weight, bias, stride, padding)
            return maps
        with torch.autocast("cpu", enabled=False):  # see `_Depthwise`
            bias = None if bias is None else bias.float()
            arguments = self.stride, self.padding, self.dilation, self.groups
            return functional.conv2d(self.input.float(), weight.float(), bias, *arguments)


@dataclass(frozen=True, kw_only=True)
class _BatchNorm:
    """The arguments of `batch_norm`, by name."""

    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5

    @classmethod
    def of(cls, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _BatchNorm:
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        return cls(**dict(zip(names, args, strict=False)), **kwargs)

    def folded_into(self, convolution: _Convolution) -> Tensor:
        """Return batch_norm(conv2d(input)), computed by one convolution with scaled weights."""
        assert self.running_mean is not None
        assert self.running_var is not None
        with torch.autocast("cpu", enabled=False):
            scale = torch.rsqrt(self.running_var + self.eps)
            scale = scale if self.weight is None else scale * self.weight
            bias = -self.running_mean if convolution.bias is None else convolution.bias - self.running_mean
            bias = bias * scale if self.bias is None else bias * scale + self.bias
            weight = convolution.weight * scale.view(-1, 1, 1, 1)
        return convolution.run(weight, bias)


class FastConvolutions(TorchFunctionMode):
    """Runs the convolutions of a network faster while it is entered, on a CPU.

    A BatchNorm with fixed statistics is a scale and a shift of each channel. Where it follows a convolution, it is
    folded into the weights, which are small, instead of passing over the maps, which are large.

    Args:
        network: Called once, with `inputs`, to find the convolutions that a BatchNorm follows.
        inputs: float [B, ...], of the network; None if BatchNorm's statistics are not fixed.
    """

    def __init__(self, network: nn.Module, inputs: Tensor | None) -> None:
        super().__init__()
        found = _FindPairs()
        if inputs is not None:
            with torch.no_grad(), found:
                network(inputs)
        self._norms = {id(weight): norm for weight, norm in found.pairs()}
        self._folded = {id(norm.running_mean) for norm in self._norms.values()}

    @property
    def folded(self) -> int:
        """The number of BatchNorms that are folded into a convolution."""
        return len(self._norms)

    def __torch_function__(
        self, func: Function, types: object, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        """Replace convolutions, and let those BatchNorms pass that are folded into them."""
        kwargs = kwargs or {}
        if func is functional.conv2d:
            convolution = _Convolution.of(args, kwargs)
            norm = self._norms.get(id(convolution.weight))
            return (
                convolution.run(convolution.weight, convolution.bias) if norm is None else norm.folded_into(convolution)
            )
        if func is functional.batch_norm:
            norm = _BatchNorm.of(args, kwargs)
            if id(norm.running_mean) in self._folded:
                return norm.input
        return func(*args, **kwargs)


class _FindPairs(TorchFunctionMode):
    """Finds the convolutions whose output nothing but a BatchNorm with fixed statistics uses."""

    def __init__(self) -> None:
        super().__init__()
        self._outputs: dict[int, tuple[Tensor, Tensor]] = {}
        """The output, which is kept so that its id stays its own, and the weight of each convolution."""
        self._norms: dict[int, list[_BatchNorm | None]] = {}
        """What used each output; None is anything but such a BatchNorm."""

    def pairs(self) -> list[tuple[Tensor, _BatchNorm]]:
        """Return the weights of the convolutions, and the BatchNorms."""
        weights = [id(weight) for _, weight in self._outputs.values()]
        return [
            (weight, uses[0])
            for number, (_, weight) in self._outputs.items()
            if len(uses := self._norms.get(number, [])) == 1 and uses[0] is not None and weights.count(id(weight)) == 1
        ]

    def __torch_function__(
        self, func: Function, types: object, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        """Record convolutions, and every use of their outputs."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not isinstance(result, int | torch.Size | torch.dtype | torch.device):  # such as maps.shape
            norm = _BatchNorm.of(args, kwargs) if func is functional.batch_norm else None
            fixed = norm is not None and not norm.training and norm.running_mean is not None
            for value in [*args, *kwargs.values()]:
                for tensor in value if isinstance(value, list | tuple) else [value]:
                    if id(tensor) in self._outputs:
                        self._norms.setdefault(id(tensor), []).append(norm if fixed else None)
        if func is functional.conv2d:
            self._outputs[id(result)] = result, _Convolution.of(args, kwargs).weight
        return result


class _Depthwise(torch.autograd.Function):
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


def _pair(value: int | str | Sequence[int]) -> tuple[int, int] | None:
    """Return a number for each direction; None for padding given as a word."""
    if isinstance(value, str):
        return None
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
