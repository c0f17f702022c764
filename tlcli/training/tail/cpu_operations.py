"""Training on a CPU: folded BatchNorm, and fast gradients of depthwise convolutions and of pooling.

They give the same gradients as torch's own operations, up to rounding, in a fraction of the time.

Shapes: B images, C channels, H x W pixels of a map, K x K weights of a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tlcli.training.tail.depthwise import DepthwiseConvolution
from tlcli.training.tail.spatial_mean import as_spatial_mean

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
            maps: Tensor = DepthwiseConvolution.apply(self.input, weight, bias, stride, padding)
            return maps
        with torch.autocast("cpu", enabled=False):  # see `depthwise`
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


class FastOperations(TorchFunctionMode):
    """Runs operations of a network so that their gradients are fast on a CPU, while it is entered.

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
        # Without the maps of that pass, which would stay in memory.
        self._norms = {id(weight): replace(norm, input=norm.input.new_empty(0)) for weight, norm in found.pairs()}
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
        mean = as_spatial_mean(func, args, kwargs)
        return func(*args, **kwargs) if mean is None else mean


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


def _pair(value: int | str | Sequence[int]) -> tuple[int, int] | None:
    """Return a number for each direction; None for padding given as a word."""
    if isinstance(value, str):
        return None
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
