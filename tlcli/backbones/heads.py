"""The head: timm's classifier, a linear layer or a 1x1 convolution; twin heads are averaged and count as one.

Shapes: D features, k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tlcli.errors import UsageError


def head_modules(model: nn.Module) -> list[nn.Module]:
    """The network's classifier: one `nn.Linear` or 1x1 `nn.Conv2d`, or two that it averages (DeiT, LeViT).

    Empty for a network that was built without a classifier.
    """
    return [model.get_submodule(name) for name in head_names(model)]


def head_names(model: nn.Module) -> list[str]:
    """The classifiers' names in the network, in the order in which timm lists them."""
    named = model.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr, operator]
    names: list[str] = [named] if isinstance(named, str) else list(named)
    # VOLO's second classifier looks at single patches, and its maximum is added: no twin.
    names = [name for name in names if name != "aux_head"]
    return [leaf for name in names if (leaf := _classifier_within(model, name)) is not None]


def _classifier_within(model: nn.Module, name: str) -> str | None:
    """`name` itself where it is a classifier, else the last one inside it (a norm and a linear layer, say)."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        return None
    inside = [path for path, child in module.named_modules() if isinstance(child, nn.Linear | nn.Conv2d)]
    if not inside:
        return None
    return f"{name}.{inside[-1]}" if inside[-1] else name


def set_head(model: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Write a softmax layer into the network's head, and into both where it has twins.

    Args:
        model: The network.
        weight: float [k, D].
        bias: float [k].

    Raises:
        UsageError: The network has no head of this size, or one without bias.
    """
    heads = head_modules(model)
    if not heads:
        raise UsageError(f"{type(model).__name__} has no head to write {weight.shape[0]} classes into.")
    with torch.no_grad():
        for head in heads:
            own_weight, own_bias = head.weight, head.bias
            if not isinstance(own_weight, Tensor) or own_weight.numel() != weight.numel():
                raise UsageError(
                    f"The head of {type(model).__name__} takes {tuple(head.weight.shape)} weights, "
                    f"not {tuple(weight.shape)}."
                )
            if not isinstance(own_bias, Tensor):
                raise UsageError(f"The head of {type(model).__name__} has no bias. Choose another backbone.")
            own_weight.copy_(weight.view_as(own_weight))
            own_bias.copy_(bias)
        silence_auxiliary_head(model)


def silence_auxiliary_head(model: nn.Module) -> None:
    """VOLO adds half its auxiliary head's maximum to the logits: at zero weights it adds nothing."""
    auxiliary = getattr(model, "aux_head", None)
    if isinstance(auxiliary, nn.Linear):
        nn.init.zeros_(auxiliary.weight)
        nn.init.zeros_(auxiliary.bias)
