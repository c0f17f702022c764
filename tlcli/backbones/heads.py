"""The head: timm's classifier, a linear layer or a 1x1 convolution. Twin heads are averaged and count as one.

Shapes: B images of H x W pixels with C channels, D features, k classes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from tlcli.errors import UsageError

Head = nn.Linear | nn.Conv2d
AUXILIARY_HEAD = "aux_head"
"""Name of VOLO's second classifier."""


def head_modules(model: nn.Module) -> list[Head]:
    """Return the network's classifier: one `nn.Linear` or 1x1 `nn.Conv2d`, or two that are averaged (DeiT, LeViT).

    The list is empty for a network without a classifier.
    """
    return [cast(Head, model.get_submodule(name)) for name in head_names(model)]


def head_names(model: nn.Module) -> list[str]:
    """Return the names of the classifiers, in timm's order."""
    named = model.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr, operator]
    names: list[str] = [named] if isinstance(named, str) else list(named)
    # VOLO's second classifier is not a twin: it classifies patches, and its maximum is added to the logits.
    names = [name for name in names if name != AUXILIARY_HEAD]
    return [leaf for name in names if (leaf := _classifier_within(model, name)) is not None]


def _classifier_within(model: nn.Module, name: str) -> str | None:
    """Return `name` if it is a linear layer or convolution, else the last one inside it, or None."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        return None
    inside = [path for path, child in module.named_modules() if isinstance(child, nn.Linear | nn.Conv2d)]
    if not inside:
        return None
    return f"{name}.{inside[-1]}" if inside[-1] else name


def set_head(model: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Write the weights of a softmax layer into the network's head, or into both twins.

    Args:
        model: The network whose head is set.
        weight: float [k, D].
        bias: float [k].

    Raises:
        UsageError: The network has no head of this size, or its head has no bias.
    """
    heads = head_modules(model)
    if not heads:
        raise UsageError(f"{type(model).__name__} has no head for {weight.shape[0]} classes. Use another backbone.")
    with torch.no_grad():
        for head in heads:
            if tuple(head.weight.shape[:2]) != tuple(weight.shape) or head.bias is None:
                found = f"{list(head.weight.shape)} weights{'' if head.bias is not None else ' and no bias'}"
                raise UsageError(f"The head of {type(model).__name__} has {found}, not {list(weight.shape)} and bias.")
            head.weight.copy_(weight.view_as(head.weight))
            head.bias.copy_(bias)
        zero_auxiliary_head(model)


def reset_head(model: nn.Module) -> None:
    """Initialize the head from the global generator. Twins start equal, and so stay equal."""
    heads = head_modules(model)
    for head in heads:
        head.reset_parameters()
        if head.weight.shape == heads[0].weight.shape:
            head.load_state_dict(heads[0].state_dict())
    zero_auxiliary_head(model)


def zero_auxiliary_head(model: nn.Module) -> None:
    """Set VOLO's auxiliary head to zero: half its maximum is added to the logits, which then adds nothing."""
    auxiliary = getattr(model, AUXILIARY_HEAD, None)
    if isinstance(auxiliary, nn.Linear):
        nn.init.zeros_(auxiliary.weight)
        nn.init.zeros_(auxiliary.bias)


class MeanOfHeads(nn.Module):
    """Averages the logits of the heads.

    Args:
        heads: One or more linear layers or 1x1 convolutions of the same size.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits [B, k] of features [B, D]."""
        logits = [
            head(features if isinstance(head, nn.Linear) else features[:, :, None, None]).flatten(1)
            for head in self.heads
        ]
        return torch.stack(logits).mean(0) if len(logits) > 1 else logits[0]


class _ObservedHead(nn.Module):
    """A network, or its tail, that can return the input of its head beside its output.

    Args:
        model: Any input to logits [B, k].
        heads: The heads of this network, whose inputs are averaged.
    """

    def __init__(self, model: nn.Module, heads: Sequence[Head]) -> None:
        super().__init__()
        self.model = model
        # By thread, since several may run batches at once. A `threading.local` could not be copied to another device.
        self._recorded: dict[int, list[Tensor]] = {}
        for head in heads:
            head.register_forward_pre_hook(self._record)

    def _record(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if (recorded := self._recorded.get(threading.get_ident())) is not None:
            recorded.append(inputs[0])

    def _run(self, values: Tensor) -> tuple[Tensor, Tensor]:
        thread = threading.get_ident()
        recorded = self._recorded[thread] = []
        try:
            output: Tensor = self.model(values)
        finally:
            del self._recorded[thread]
        vectors = [value.flatten(1) if value.shape[2:].numel() == 1 else value for value in recorded]
        return output, torch.stack(vectors).mean(0) if len(vectors) > 1 else vectors[0]


class HeadInput(_ObservedHead):
    """Runs the whole network and returns the input of its head; a prefix for networks that cannot be traced."""

    def forward(self, images: Tensor) -> Tensor:
        """Compute features [B, D] of images [B, C, H, W]."""
        return self._run(images)[1]


class WithHeadInput(_ObservedHead):
    """Runs a network, or its tail, and returns its logits and the input of its head."""

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits [B, k], and features [B, D] (not flattened if they are no vectors)."""
        return self._run(values)
