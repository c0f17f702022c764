"""The output sizes of convolutions and poolings: floor((n + 2p - f) / s) + 1 along each axis.

Here n is the input size in pixels, p the padding on each side, f the side of the filter, and s the stride.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from timm.layers.blur_pool import BlurPool2d
from torch import nn

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Window:
    """The sliding window of a convolution or pooling. Pairs are (height, width)."""

    kernel: Pair
    stride: Pair = (1, 1)
    before: Pair = (0, 0)
    """Padding at the top and left, in pixels."""
    after: Pair = (0, 0)
    """Padding at the bottom and right, in pixels."""
    dilation: Pair = (1, 1)
    ceil: bool = False
    """Whether the last window may reach beyond the padding (ceil_mode of poolings)."""

    def extent(self, axis: int) -> int:
        """Return the side of the window in pixels, including dilation, along an axis (0 height, 1 width)."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def output_size(self, size: int, axis: int = 0) -> int:
        """Return the number of window positions along an axis (0 height, 1 width) of `size` pixels."""
        room = size + self.before[axis] + self.after[axis] - self.extent(axis)
        positions = room // self.stride[axis] + 1
        if self.ceil and room % self.stride[axis] and positions * self.stride[axis] < size + self.before[axis]:
            positions += 1  # only if it starts inside the image or the padding before it
        return positions

    def formula(self, size: int, axis: int = 0) -> str:
        """Return the computation as text: "floor((224 + 2*2 - 11) / 4) + 1 = 55"."""
        before, after = self.before[axis], self.after[axis]
        padding = f"2*{before}" if before == after else f"{before} + {after}"
        rounding = "ceil" if self.output_size(size, axis) != self._floored(size, axis) else "floor"
        return (
            f"{rounding}(({size} + {padding} - {self.extent(axis)}) / {self.stride[axis]}) + 1"
            f" = {self.output_size(size, axis)}"
        )

    def _floored(self, size: int, axis: int) -> int:
        return (size + self.before[axis] + self.after[axis] - self.extent(axis)) // self.stride[axis] + 1

    @property
    def padding(self) -> Pair | tuple[int, int, int, int]:
        """(height, width) if both sides are equal, else (left, right, top, bottom), in pixels."""
        if self.before == self.after:
            return self.before
        return (self.before[1], self.after[1], self.before[0], self.after[0])


def window_of(module: nn.Module, size: Pair) -> Window | None:
    """Return the window of a convolution or pooling on maps of `size` (height, width); None for other modules."""
    if isinstance(module, BlurPool2d):
        left, right, top, bottom = (_pair(side)[0] for side in module.padding)
        side = int(module.filt_size)
        return Window(kernel=(side, side), stride=_pair(module.stride), before=(top, left), after=(bottom, right))
    if not isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return None
    kernel = _pair(module.kernel_size)
    stride = _pair(module.stride)
    dilation = _pair(getattr(module, "dilation", 1))
    extents = [dilation[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
    before: Pair
    after: Pair
    if "Same" in type(module).__name__ or module.padding == "same":  # TensorFlow's padding depends on the size
        height, width = (
            max((math.ceil(size[a] / stride[a]) - 1) * stride[a] + extents[a] - size[a], 0) for a in (0, 1)
        )
        before, after = (height // 2, width // 2), (height - height // 2, width - width // 2)
    else:
        before = after = (0, 0) if module.padding == "valid" else _pair(module.padding)
    return Window(
        kernel=kernel,
        stride=stride,
        before=before,
        after=after,
        dilation=dilation,
        ceil=bool(getattr(module, "ceil_mode", False)),
    )


def _pair(value: Any) -> Pair:  # noqa: ANN401
    if isinstance(value, tuple | list):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))
