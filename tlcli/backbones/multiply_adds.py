"""Count the multiply-adds of a forward pass: of the whole network, and of single modules."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tlcli.backbones.backbone import Backbone


def multiply_adds(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Count the multiply-adds of a forward pass (convolutions, matrix products, attention).

    Args:
        network: The network to run once, on any device.
        shape: Shape of one input, without the batch.
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *shape, device=device))
    return int(counter.get_total_flops()) // 2


def multiply_adds_by_module(backbone: Backbone, names: list[str]) -> list[int]:
    """Count the multiply-adds of each of the modules `names`, for one image."""
    spec = backbone.input
    device = next(backbone.model.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.model(torch.zeros(1, spec.channels, spec.height, spec.width, device=device))
    counts = counter.get_flop_counts()
    root = type(backbone.model).__name__
    return [sum(counts.get(f"{root}.{name}", {}).values()) // 2 for name in names]
