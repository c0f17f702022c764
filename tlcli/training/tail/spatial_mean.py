"""The mean over all pixels of a map, whose gradient has the memory layout of the maps.

torch's gradient is in another layout (torch 2.14), so that every operation before the mean converts it, pixel by pixel:
a fifth of the time of a short tail.

Shapes: B images, C channels, H x W pixels of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

PIXELS = ({2, 3}, {-2, -1}, {2, -1}, {-2, 3})
"""The axes of pixels."""


def as_spatial_mean(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Compute a call of a torch function if it is a mean over all pixels of maps; otherwise return None."""
    maps = args[0] if args else kwargs.get("input")
    if not isinstance(maps, Tensor) or maps.ndim != 4 or not maps.is_floating_point():
        return None
    given = [*args[1:], *kwargs.values()]
    if func is functional.adaptive_avg_pool2d:
        if given not in ([1], [(1, 1)], [[1, 1]]):
            return None
        keep = True
    elif func in {torch.mean, Tensor.mean} and kwargs.keys() <= {"dim", "keepdim"} and given:
        axes, *rest = given if "dim" not in kwargs else [kwargs["dim"], *args[1:]]
        if not isinstance(axes, tuple | list) or set(axes) not in PIXELS:
            return None
        keep = bool(kwargs.get("keepdim", rest[0] if rest else False))
    else:
        return None
    mean: Tensor = _SpatialMean.apply(maps)
    return mean if keep else mean.flatten(1)


class _SpatialMean(torch.autograd.Function):
    """Maps [B, C, H, W] to means [B, C, 1, 1]."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:  # noqa: ANN401
        """Average over the pixels."""
        ctx.size = maps.shape[2:]
        return maps.mean(dim=(2, 3), keepdim=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        """Spread the gradient over the pixels."""
        height, width = ctx.size
        shared = (gradients[0] / (height * width)).permute(0, 2, 3, 1)
        spread: Tensor = shared.expand(-1, height, width, -1).contiguous().permute(0, 3, 1, 2)
        return spread
