"""The numbered table of a network's layers, to which `--freeze N` refers."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import fx, nn

from tlcli.backbones.backbone import Backbone
from tlcli.backbones.build import build_backbone, pretrained_config
from tlcli.backbones.convolution_arithmetic import Pair
from tlcli.backbones.cut_points import LayerSpan, TracedNetwork, parameter_count, trace_backbone
from tlcli.backbones.heads import head_modules, head_names
from tlcli.backbones.receptive_field import ReceptiveFieldTracker, WindowStep, track_receptive_fields


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A row of the table; the network can be cut after it. The head has the number 0."""

    number: int
    name: str
    kind: str
    """"stem", "convolution", "block", "linear" or "head"; "network" if it cannot be traced."""
    output_shape: tuple[int, ...]
    """Shape of the tensor that crosses after the layer, without the batch: [C, H, W], [tokens, D] or [D]."""
    parameters: int
    kernel: Pair | None = None
    """Height and width; None for blocks and linear layers."""
    stride: Pair | None = None
    """Stride of the convolution, or total stride of the block."""
    padding: Pair | tuple[int, int, int, int] | None = None
    """Height and width, or (left, right, top, bottom) if both sides differ."""
    receptive_field: int | None = None
    """Side of the region of pixels that an output of the layer depends on, at most the image's side."""
    arithmetic: tuple[str, ...] = ()
    """The computation of the output size of each convolution and pooling, as text."""


@dataclass(frozen=True, kw_only=True)
class LayerTable:
    """The layers of a network, and its head."""

    layers: tuple[Layer, ...]
    head: Layer
    parameters: int
    """Parameters of the layers and the head."""


def layer_table_by_name(name: str, size: int | None = None) -> tuple[Backbone, LayerTable]:
    """Build a network without pretrained weights, if possible on the meta device, and number its layers.

    Args:
        name: Name of the backbone.
        size: Side of the input in pixels; None for the network's own.

    Returns:
        The network, possibly without weights, and its table.

    Raises:
        UsageError: The name is unknown, or the network does not support this size.
    """
    config = pretrained_config(name)
    # Some networks compute with values while they are built, or have operations that the meta device does not support.
    with contextlib.suppress(NotImplementedError, RuntimeError), torch.device("meta"):
        backbone = build_backbone(name, config, classes=None, size=size)
        if (traced := trace_backbone(backbone)) and traced.layers:
            return backbone, _table(backbone, traced)
    backbone = build_backbone(name, config, classes=None, size=size)
    return backbone, layer_table(backbone)


def layer_table(backbone: Backbone) -> LayerTable:
    """Number the layers of a network; the table has one row if the network cannot be traced.

    Args:
        backbone: The network, on any device. One image passes through it.
    """
    traced = trace_backbone(backbone)
    if traced is not None and traced.layers:
        return _table(backbone, traced)
    model = backbone.model
    total = _count(model)
    head = sum(_count(module) for module in head_modules(model))
    width = head_modules(model)[0].weight.shape[1] if head else getattr(model, "num_features", 0)
    layer = Layer(number=1, name="all", kind="network", output_shape=(int(width),), parameters=total - head)
    return LayerTable(layers=(layer,), head=_head(model, head), parameters=total)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _head(model: nn.Module, parameters: int) -> Layer:
    classes = int(getattr(model, "num_classes", 0) or 0)
    return Layer(
        number=0, name=", ".join(head_names(model)), kind="head", output_shape=(classes,), parameters=parameters
    )


def _table(backbone: Backbone, traced: TracedNetwork) -> LayerTable:
    model, spec = backbone.model, backbone.input
    tracker = track_receptive_fields(model, traced.graph, (1, spec.channels, spec.height, spec.width))
    plain = all(len(span.weighted) == 1 and _matrices(model, span) == 1 for span in traced.layers)
    layers = []
    before = next(iter(traced.graph.nodes))
    for number, span in enumerate(traced.layers, 1):
        layers.append(_layer(backbone, traced, tracker, number, span, before=before, plain=plain))
        before = span.end
    total = _count(model)
    head = _head(model, total - sum(layer.parameters for layer in layers))
    return LayerTable(layers=tuple(layers), head=head, parameters=total)


def _layer(
    backbone: Backbone,
    traced: TracedNetwork,
    tracker: ReceptiveFieldTracker,
    number: int,
    span: LayerSpan,
    *,
    before: fx.Node,
    plain: bool,
) -> Layer:
    model, spec = backbone.model, backbone.input
    steps = [step for node in span.nodes for step in tracker.steps.get(node, [])]
    only = _only_convolution(model, span, steps)
    shape = tuple(traced.values[span.end].shape[1:])
    if only is not None and (only.size == only.window.kernel and only.window.before == only.window.after == (0, 0)):
        kind, only = "linear", None  # a filter as large as its maps has a single position
    elif number == 1 and not plain:
        kind = "stem"
    elif only is not None:
        kind = "convolution"
    else:
        kind = "linear" if len(shape) == 1 and _matrices(model, span) == 1 else "block"
    leaving = tracker.fields.get(span.end)
    stride = only.window.stride if only else None
    if stride is None and kind in ("block", "stem"):
        stride = _total_stride(traced, tracker, before, span.end)
    return Layer(
        number=number,
        name=span.name,
        kind=kind,
        output_shape=shape,
        parameters=parameter_count(model, span.nodes),
        kernel=only.window.kernel if only else None,
        stride=stride,
        padding=only.window.padding if only else None,
        receptive_field=leaving.side((spec.height, spec.width)) if leaving else None,
        arithmetic=tuple(_arithmetic(step) for step in steps),
    )


def _total_stride(
    traced: TracedNetwork, tracker: ReceptiveFieldTracker, before: fx.Node, after: fx.Node
) -> Pair | None:
    """Return the ratio of the map sizes before and after a layer; None if it is unknown (tokens)."""
    entering, leaving = (_map_side(tuple(traced.values[node].shape[1:])) for node in (before, after))
    if entering and leaving:
        return (round(entering / leaving), round(entering / leaving))
    first, last = tracker.fields.get(before), tracker.fields.get(after)
    if first is None or last is None or first.axes is None:
        return None
    return (round(last.jump[0] / first.jump[0]), round(last.jump[1] / first.jump[1]))


def _map_side(shape: tuple[int, ...]) -> int | None:
    """Return the side of square maps [C, H, W] or [H, W, C]."""
    if len(shape) != 3:
        return None
    return shape[1] if shape[1] in (shape[0], shape[2]) else None


def _matrices(model: nn.Module, span: LayerSpan) -> int:
    """Count the convolutions and linear layers of a layer."""
    return sum(
        isinstance(module, nn.Conv2d | nn.Linear)
        for name in span.weighted
        for module in model.get_submodule(name).modules()
    )


def _only_convolution(model: nn.Module, span: LayerSpan, steps: list[WindowStep]) -> WindowStep | None:
    """Return the layer's convolution, if it has one and no other weights."""
    found = [step for step in steps if isinstance(step.module, nn.Conv2d)]
    return found[0] if len(found) == 1 and _matrices(model, span) == 1 else None


def _arithmetic(step: WindowStep) -> str:
    height = step.window.formula(step.size[0], 0)
    width = step.window.formula(step.size[1], 1)
    return height if height == width else f"{height}; {width}"
