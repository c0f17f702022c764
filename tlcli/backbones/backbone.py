"""A network and its cut, described by facts; their modules are built when something runs them.

Importing this module does not import torch, and neither does a command that needs only the facts.

Shapes: B images of H x W pixels with C channels, D features, k classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcli.backbones.input_spec import InputSpec
from tlcli.backbones.outline import Outline

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class WeightsRequest:
    """What the user asked for when the weights were loaded."""

    weights: str
    """"pretrained", or the path of a file."""
    size: int | None
    """Side of the input in pixels; None for the network's own."""
    source: Path | None
    """The file on this machine that the weights were read from; None if it is unknown."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network ready for use: in eval mode, on the CPU, in float32."""

    name: str
    """Name, as in `--backbone`."""
    build: Callable[[], nn.Module] = field(repr=False, compare=False)
    """Returns the network's modules; called at most once, by `model`."""
    input: InputSpec
    origin: str
    """Where the weights came from, for messages and the report."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of timm.create_model, besides the name and the number of classes, that rebuild this network."""
    request: WeightsRequest | None = None
    """How the weights were asked for; None if they are random, or from a folder."""
    outline: Outline | None = None
    """What is known of the network without building it; None if it was built."""
    trace_cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """Cache of `cut_points.trace_backbone`, which takes seconds."""
    fitted_head: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False, compare=False)
    """The head that `set_head` keeps until the network is built."""

    @cached_property
    def model(self) -> nn.Module:
        """The network's modules, built at first use."""
        model = self.build()
        if self.fitted_head:
            from tlcli.backbones.heads import set_head

            set_head(model, *self.fitted_head[0])
        return model

    @property
    def unbuilt(self) -> Outline | None:
        """The outline if the modules were not built yet, else None."""
        return None if "model" in vars(self) else self.outline

    def set_head(self, weight: Tensor, bias: Tensor) -> None:
        """Write the weights of a softmax layer, float [k, D] and [k], into the network's head.

        Raises:
            UsageError: The network has no head of this size, or its head has no bias.
        """
        if self.unbuilt:
            self.fitted_head[:] = [(weight, bias)]
            return
        from tlcli.backbones.heads import set_head

        set_head(self.model, weight, bias)

    def head(self) -> tuple[Tensor, Tensor | None]:
        """Return weight, float [k, D], and bias, float [k], of the first head."""
        if self.unbuilt and self.fitted_head:
            return self.fitted_head[0]
        from tlcli.backbones.heads import head_modules

        head = head_modules(self.model)[0]
        return head.weight.detach().flatten(1), None if head.bias is None else head.bias.detach()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the network's tensors by name."""
        if (outline := self.unbuilt) and self.fitted_head:
            return outline.state_dict(*self.fitted_head[0])
        return dict(self.model.state_dict())


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A network in two pieces; in eval mode, tail(prefix(images)) equals the whole network, bit for bit."""

    split: Callable[[], tuple[nn.Module, nn.Module]] = field(repr=False, compare=False)
    """Returns prefix and tail; called at most once."""
    layer: int
    """Number of the last frozen layer; 0 if nothing is frozen."""
    name: str
    """Name of that layer; empty if nothing is frozen."""
    of: int
    """Number of layers in the network."""
    feature_shape: tuple[int, ...]
    """Shape of one image's features: (D,), or (C, H, W) for maps, or (tokens, D)."""

    @cached_property
    def _pieces(self) -> tuple[nn.Module, nn.Module]:
        return self.split()

    @property
    def prefix(self) -> nn.Module:
        """Float [B, C, H, W] to features [B, *feature_shape]; always in eval mode, without gradients."""
        return self._pieces[0]

    @property
    def tail(self) -> nn.Module:
        """Features to logits [B, k]; dropout and stochastic depth are active in train mode."""
        return self._pieces[1]
