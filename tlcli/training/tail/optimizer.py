"""AdamW for a tail: weight decay, layer-wise learning rates, and the schedule over the steps."""

from __future__ import annotations

import math

import torch
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from torch import nn
from torch.optim import AdamW


def make_optimizer(network: nn.Module, *, weight_decay: float, layer_decay: float) -> AdamW:
    """Create AdamW (Loshchilov & Hutter 2019) over the parameters that need a gradient.

    Only weights decay: not biases, norms, or parameters that the network itself exempts (position embeddings).

    Args:
        network: The whole network. Frozen parameters are left out.
        weight_decay: Weight decay of the weights.
        layer_decay: Ratio of the learning rates of a layer and the next one (layer-wise learning-rate decay,
            Clark et al. 2020; Bao et al. 2022).

    Returns:
        An optimizer whose groups hold `lr_scale`, for `set_learning_rate`.
    """
    named = getattr(network, "no_weight_decay", None)
    exempt = named() if callable(named) else ()
    groups = param_groups_layer_decay(
        network, weight_decay, no_weight_decay_list=exempt, layer_decay=layer_decay, verbose=False
    )
    return AdamW(groups, lr=1.0, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of each group to its share of `learning_rate`."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]


def schedule(step: int, steps: int, warmup: int) -> float:
    """Return the fraction of the peak learning rate at a step from 0: linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
