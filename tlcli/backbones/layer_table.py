"""The numbered table of a network's layers: what `--freeze N` freezes, and the arithmetic of each."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import fx, nn

from tlcli.backbones.build import Backbone, build_backbone, pretrained_config
from tlcli.backbones.convolution_arithmetic import Pair
from tlcli.backbones.cut_points import LayerSpan, TracedNetwork, parameter_count, trace_backbone
from tlcli.backbones.heads import head_modules, head_names
from tlcli.backbones.receptive_field import ReceptiveFieldTracker, WindowStep, track_receptive_fields


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A row: behind it the network can be cut. The head is a row without a number (0)."""

    number: int
    name: str
    kind: str
    """"stem", "convolution", "block", "linear" or "head"; "network" where nothing can be traced"""
    output_shape: tuple[int, ...]
    """of what crosses behind the row, without the batch: [C, H, W], [T, D] or [D]"""
    parameters: int
    kernel: Pair | None = None
    """height and width; None for blocks and linear layers"""
    stride: Pair | None = None
    """of the convolution, or of the whole block"""
    padding: Pair | tuple[int, int, int, int] | None = None
    """height and width, or (left, right, top, bottom) where the sides differ"""
    receptive_field: int | None = None
    """pixels along a side that can reach an entry behind the row, at most the image's side"""
    arithmetic: tuple[str, ...] = ()
    """the output size of each convolution and pooling of the row, as a sum"""


@dataclass(frozen=True, kw_only=True)
class LayerTable:
    """The layers of a network, its head, and the parameters of both."""

    layers: tuple[Layer, ...]
    head: Layer
    parameters: int


def layer_table_by_name(name: str, size: int | None = None) -> tuple[Backbone, LayerTable]:
    """The table of a network by its name, without its weights: it is built without memory for them where possible.

    Args:
        name: As for `load_backbone`.
        size: Side of the input in pixels; None for the network's own.

    Raises:
        UsageError: Unknown name, or a size the network can't take.
    """
    config = pretrained_config(name)
    # Not every network can: some compute with values while they are built, or have operations without shapes alone.
    with contextlib.suppress(NotImplementedError, RuntimeError), torch.device("meta"):
        backbone = build_backbone(name, config, classes=None, size=size)
        if (traced := trace_backbone(backbone)) and traced.layers:
            return backbone, _table(backbone, traced)
    backbone = build_backbone(name, config, classes=None, size=size)
    return backbone, layer_table(backbone)


def layer_table(backbone: Backbone) -> LayerTable:
    """The numbered layers of a network; one row where it can't be traced.

    Args:
        backbone: On any device; one image passes through it.
    """
    traced = trace_backbone(backbone)
    if traced is not None and traced.layers:
        return _table(backbone, traced)
    model = backbone.model
    total = _count(model)
    head = sum(_count(module) for module in head_modules(model))
    width = head_modules(model)[0].weight.shape[1] if head else getattr(model, "num_features", 0)
    row = Layer(number=1, name="all", kind="network", output_shape=(int(width),), parameters=total - head)
    return LayerTable(layers=(row,), head=_head(model, head), parameters=total)


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
    plain = all(len(row.weighted) == 1 and _matrices(model, row) == 1 for row in traced.layers)
    layers = []
    before = next(iter(traced.graph.nodes))
    for number, row in enumerate(traced.layers, 1):
        layers.append(_layer(backbone, traced, tracker, number, row, before=before, plain=plain))
        before = row.end
    total = _count(model)
    head = _head(model, total - sum(layer.parameters for layer in layers))
    return LayerTable(layers=tuple(layers), head=head, parameters=total)


def _layer(
    backbone: Backbone,
    traced: TracedNetwork,
    tracker: ReceptiveFieldTracker,
    number: int,
    row: LayerSpan,
    *,
    before: fx.Node,
    plain: bool,
) -> Layer:
    model, spec = backbone.model, backbone.input
    steps = [step for node in row.nodes for step in tracker.steps.get(node, [])]
    only = _only_convolution(model, row, steps)
    shape = tuple(traced.values[row.end].shape[1:])
    if only is not None and (only.size == only.window.kernel and only.window.before == only.window.after == (0, 0)):
        kind, only = "linear", None  # a filter as large as its maps sees everything once
    elif number == 1 and not plain:
        kind = "stem"
    elif only is not None:
        kind = "convolution"
    else:
        kind = "linear" if len(shape) == 1 and _matrices(model, row) == 1 else "block"
    leaving = tracker.fields.get(row.end)
    stride = only.window.stride if only else None
    if stride is None and kind in ("block", "stem"):
        stride = _total_stride(traced, tracker, before, row.end)
    return Layer(
        number=number,
        name=row.name,
        kind=kind,
        output_shape=shape,
        parameters=parameter_count(model, row.nodes),
        kernel=only.window.kernel if only else None,
        stride=stride,
        padding=only.window.padding if only else None,
        receptive_field=leaving.side((spec.height, spec.width)) if leaving else None,
        arithmetic=tuple(_sum(step) for step in steps),
    )


def _total_stride(
    traced: TracedNetwork, tracker: ReceptiveFieldTracker, before: fx.Node, after: fx.Node
) -> Pair | None:
    """By how much a row thins out the places; None where it can't be told (tokens)."""
    entering, leaving = (_map_side(tuple(traced.values[node].shape[1:])) for node in (before, after))
    if entering and leaving:
        return (round(entering / leaving), round(entering / leaving))
    first, last = tracker.fields.get(before), tracker.fields.get(after)
    if first is None or last is None or first.axes is None:
        return None
    return (round(last.jump[0] / first.jump[0]), round(last.jump[1] / first.jump[1]))


def _map_side(shape: tuple[int, ...]) -> int | None:
    """The side of square maps [C, H, W] or [H, W, C]."""
    if len(shape) != 3:
        return None
    return next((side for side in (shape[1],) if side in (shape[0], shape[2])), None)


def _matrices(model: nn.Module, row: LayerSpan) -> int:
    """How many convolutions and linear layers the row has."""
    return sum(
        isinstance(module, nn.Conv2d | nn.Linear)
        for name in row.weighted
        for module in model.get_submodule(name).modules()
    )


def _only_convolution(model: nn.Module, row: LayerSpan, steps: list[WindowStep]) -> WindowStep | None:
    """The row's convolution, where it has one and no other weights."""
    found = [step for step in steps if isinstance(step.module, nn.Conv2d)]
    return found[0] if len(found) == 1 and _matrices(model, row) == 1 else None


def _sum(step: WindowStep) -> str:
    height = step.window.formula(step.size[0], 0)
    width = step.window.formula(step.size[1], 1)
    return height if height == width else f"{height}; {width}"
