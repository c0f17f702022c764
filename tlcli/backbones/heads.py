"""The head: timm's classifier, a linear layer or a 1x1 convolution; twin heads are averaged and count as one.

Shapes: D features, k classes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from tlcli.errors import UsageError

Head = nn.Linear | nn.Conv2d


def head_modules(model: nn.Module) -> list[Head]:
    """The network's classifier: one `nn.Linear` or 1x1 `nn.Conv2d`, or two that it averages (DeiT, LeViT).

    Empty for a network that was built without a classifier.
    """
    return [cast(Head, model.get_submodule(name)) for name in head_names(model)]


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
            if tuple(head.weight.shape[:2]) != tuple(weight.shape) or head.bias is None:
                found = f"{list(head.weight.shape)} weights{'' if head.bias is not None else ' and no bias'}"
                raise UsageError(f"The head of {type(model).__name__} has {found}, not {list(weight.shape)} and bias.")
            head.weight.copy_(weight.view_as(head.weight))
            head.bias.copy_(bias)
        zero_auxiliary_head(model)


def reset_head(model: nn.Module) -> None:
    """Draw a new head from the global generator; twins start, and so stay, alike."""
    heads = head_modules(model)
    for head in heads:
        head.reset_parameters()
        if head.weight.shape == heads[0].weight.shape:
            head.load_state_dict(heads[0].state_dict())
    zero_auxiliary_head(model)


def zero_auxiliary_head(model: nn.Module) -> None:
    """VOLO adds half its auxiliary head's maximum to the logits: at zero weights it adds nothing."""
    auxiliary = getattr(model, "aux_head", None)
    if isinstance(auxiliary, nn.Linear):
        nn.init.zeros_(auxiliary.weight)
        nn.init.zeros_(auxiliary.bias)


class MeanOfHeads(nn.Module):
    """The heads' mean logits: with one head, the head.

    Args:
        heads: Linear layers or 1x1 convolutions of the same size.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Tensor) -> Tensor:
        """Logits [B, k] of features [B, D]."""
        logits = [
            head(features if isinstance(head, nn.Linear) else features[:, :, None, None]).flatten(1)
            for head in self.heads
        ]
        return torch.stack(logits).mean(0) if len(logits) > 1 else logits[0]


class HeadInput(nn.Module):
    """What the head sees when the whole network runs: the way to a feature where nothing can be traced.

    Args:
        model: The network.
        heads: Its heads, whose inputs are averaged.
    """

    def __init__(self, model: nn.Module, heads: Sequence[Head]) -> None:
        super().__init__()
        self.model = model
        self._own = threading.local()  # batches may run side by side, each must see its own
        for head in heads:
            head.register_forward_pre_hook(self._see)

    def _see(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if (seen := getattr(self._own, "seen", None)) is not None:
            seen.append(inputs[0])

    def forward(self, images: Tensor) -> Tensor:
        """Features [B, D] of images [B, C, H, W]."""
        self._own.seen = []
        try:
            self.model(images)
            seen: list[Tensor] = self._own.seen
        finally:
            self._own.seen = None
        vectors = [value.flatten(1) if value.shape[2:].numel() == 1 else value for value in seen]
        return torch.stack(vectors).mean(0) if len(vectors) > 1 else vectors[0]
