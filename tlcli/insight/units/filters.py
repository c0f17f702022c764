"""Draw the filters of a network's first convolution.

Shapes: U filters of h x w weights and C input channels.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from tlcli.images.batch import Floats
from tlcli.insight.units.patch_grids import to_gray_centered


def first_filters(model: nn.Module, channels: int) -> Floats | None:
    """Return the filters of a network's first convolution, float32 [U, h, w, C], if they can be shown as images.

    Args:
        model: The network whose first convolution is drawn.
        channels: Channels C of its input.

    Returns:
        None if the first convolution is grouped, does not read the input, or C is neither 1 nor 3.
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.in_channels != channels or first.groups != 1 or channels not in {1, 3}:
        return None
    filters: Floats = first.weight.detach().to(torch.float32).permute(0, 2, 3, 1).cpu().numpy()
    return filters


def filter_sheet(filters: Floats) -> Image.Image:
    """Draw all filters in order as an RGBA image: zero is gray, and each filter is scaled to full contrast.

    Args:
        filters: float32 [U, h, w, C].
    """
    count, height, width = filters.shape[:3]
    scale = max(1, round((48 if count <= 64 else 32) / max(height, width)))
    gap = 4
    columns = min(count, 16 if count <= 128 else 32)
    step = (width * scale + gap, height * scale + gap)
    rows = -(-count // columns)
    sheet = Image.new("RGBA", (columns * step[0] - gap, rows * step[1] - gap), (0, 0, 0, 0))
    for number, weights in enumerate(filters):
        levels = to_gray_centered(weights, float(np.abs(weights).max()))
        tile = Image.fromarray(np.repeat(levels, 3, axis=2) if levels.shape[2] == 1 else levels)
        row, column = divmod(number, columns)
        enlarged = tile.resize((width * scale, height * scale), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (column * step[0], row * step[1]))
    return sheet
