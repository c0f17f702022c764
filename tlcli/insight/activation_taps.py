"""Choose the layers to inspect, and locate their units and spatial positions.

A unit is a channel of a map [C, H, W] (or [H, W, C]), a dimension of tokens [T, D], or an entry of a vector [D]. If a
layer ends in pooling or flattening to a vector, its units are those of the maps before it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from tlcli.backbones.backbone import Backbone
from tlcli.backbones.convolution_arithmetic import Pair
from tlcli.backbones.cut_points import LayerSpan, TracedNetwork, trace_backbone
from tlcli.backbones.layer_table import Layer, layer_table
from tlcli.backbones.receptive_field import ReceptiveField, ReceptiveFieldTracker, track_receptive_fields
from tlcli.errors import UsageError
from tlcli.insight.receptive_boxes import ReceptiveBoxes

BEFORE, AFTER = "before", "after"

DEFAULT_LAYERS = 5
"""Layers to inspect if none are given."""


@dataclass(frozen=True, kw_only=True)
class UnitLayout:
    """How units and positions are arranged in a layer's output, without the batch dimension."""

    units: int
    map_size: Pair
    """Height and width of a unit's map; (1, 1) if there are no spatial positions."""
    kind: str
    """"maps" [C, H, W], "channels_last" [H, W, C], "tokens" [T, D] or "vector" [D]."""
    prefix_tokens: int = 0
    """Leading tokens without a spatial position, such as a class token."""

    def to_maps(self, values: Tensor) -> Tensor:
        """Convert a layer's output [B, ...] to the maps of its units, [B, U, H, W]."""
        match self.kind:
            case "maps":
                return values
            case "channels_last":
                return values.permute(0, 3, 1, 2)
            case "tokens":
                return values[:, self.prefix_tokens :].transpose(1, 2).reshape(len(values), self.units, *self.map_size)
            case _:
                return values.flatten(1)[:, :, None, None]

    def from_maps(self, maps: Tensor, values: Tensor) -> Tensor:
        """Convert maps [B, U, H, W] back to a layer's output [B, ...], as a new tensor.

        Args:
            maps: float [B, U, H, W].
            values: The output that the maps were made from. Its prefix tokens are kept.
        """
        match self.kind:
            case "maps":
                return maps.clone()
            case "channels_last":
                return maps.permute(0, 2, 3, 1).clone()
            case "tokens":
                return torch.cat([values[:, : self.prefix_tokens], maps.flatten(2).transpose(1, 2)], 1)
            case _:
                return maps.reshape(values.shape).clone()


@dataclass(frozen=True, kw_only=True)
class ActivationTap:
    """A point in the network where the activations of one layer are read."""

    layer: Layer
    node: fx.Node
    """The graph node whose value holds the activations."""
    layout: UnitLayout
    boxes: ReceptiveBoxes
    stage: str | None = None
    """"before" or "after" fine-tuning; None if there was none or the layer was frozen."""

    @property
    def before(self) -> bool:
        """Whether the activations are those of the network before fine-tuning."""
        return self.stage == BEFORE


def choose_taps(backbone: Backbone, requested: tuple[str, ...]) -> list[ActivationTap]:
    """Tap the requested layers, or `DEFAULT_LAYERS` spread evenly from first to last, in forward order.

    Args:
        backbone: The network, on any device.
        requested: Layer numbers or names as in `tlcli layers`; the name of a stage selects its last layer.

    Raises:
        UsageError: there is no such layer, or the network cannot be traced.
    """
    traced = _traced_network(backbone)
    names = [row.name for row in traced.layers]
    if requested:
        numbers = sorted({_layer_number(text, names, backbone.name) for text in requested})
    else:
        count = min(DEFAULT_LAYERS, len(names))
        numbers = sorted({1 + round(index * (len(names) - 1) / max(count - 1, 1)) for index in range(count)})
    return list(_taps(backbone, traced, numbers))


def spatial_taps(backbone: Backbone) -> Iterator[ActivationTap]:
    """Tap the layers whose units have two-dimensional maps of more than one position, from last to first.

    Args:
        backbone: The network, on any device.

    Raises:
        UsageError: the network cannot be traced.
    """
    traced = _traced_network(backbone)
    taps = _taps(backbone, traced, range(len(traced.layers), 0, -1))
    return (
        tap for tap in taps if tap.layout.map_size != (1, 1) and (tap.layout.kind != "tokens" or _square(tap.layout))
    )


def tap_stages(taps: Sequence[ActivationTap], *, frozen: int | None, compare: bool) -> list[ActivationTap]:
    """Return the tap of each frozen layer as it is, and of each trained layer one before and one after fine-tuning.

    Args:
        taps: Taps of one network.
        frozen: Leading layers that fine-tuning did not change; None if there was no fine-tuning.
        compare: Whether the network before fine-tuning is available; if not, trained layers get no "before".
    """
    found = []
    for tap in taps:
        if frozen is None or tap.layer.number <= frozen:
            found.append(tap)
        else:
            found += [replace(tap, stage=stage) for stage in (BEFORE, AFTER) if stage == AFTER or compare]
    return found


def _traced_network(backbone: Backbone) -> TracedNetwork:
    traced = trace_backbone(backbone)
    if traced is None or not traced.layers:
        raise UsageError(
            f"{backbone.name} cannot be traced, so its layers cannot be inspected separately. Use another backbone."
        )
    return traced


def _taps(backbone: Backbone, traced: TracedNetwork, numbers: Iterable[int]) -> Iterator[ActivationTap]:
    table, spec = layer_table(backbone).layers, backbone.input
    tracker = track_receptive_fields(backbone.model, traced.graph, (1, spec.channels, spec.height, spec.width))
    return (_tap(backbone, traced, tracker, table[number - 1], traced.layers[number - 1]) for number in numbers)


def _layer_number(text: str, names: list[str], backbone: str) -> int:
    """Return the number of a layer given by number or name."""
    see = f"Run `tlcli layers {backbone}` to list them."
    if text.lstrip("-").isdecimal():
        if 1 <= int(text) <= len(names):
            return int(text)
        raise UsageError(f"--layer {text}: {backbone} has layers 1 to {len(names)}. {see}")
    found = [index for index, name in enumerate(names, 1) if name == text or name.startswith(f"{text}.")]
    if found:
        return found[-1]
    close = difflib.get_close_matches(text, names, n=3, cutoff=0.4)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    raise UsageError(f"--layer {text}: {backbone} has no layer with this name.{hint} {see}")


def _tap(
    backbone: Backbone, traced: TracedNetwork, tracker: ReceptiveFieldTracker, layer: Layer, row: LayerSpan
) -> ActivationTap:
    prefix_tokens = int(getattr(backbone.model, "num_prefix_tokens", 0))
    node, layout = row.end, _layout(traced.values[row.end], tracker.fields.get(row.end), prefix_tokens)
    if layout.map_size == (1, 1):  # pooled or flattened: use the maps before
        for earlier in reversed(row.nodes):
            value, field = traced.values[earlier], tracker.fields.get(earlier)
            if not isinstance(value, Tensor) or value.ndim < 3 or field is None:
                continue
            candidate = _layout(value, field, prefix_tokens)
            if candidate.map_size != (1, 1):
                node, layout = earlier, candidate
                break
    size = (backbone.input.height, backbone.input.width)
    field = _local_field(tracker.fields.get(node), layout, size)
    boxes = ReceptiveBoxes(input_size=size, map_size=layout.map_size, field=field)
    return ActivationTap(layer=layer, node=node, layout=layout, boxes=boxes)


def _layout(value: Any, field: ReceptiveField | None, prefix_tokens: int) -> UnitLayout:  # noqa: ANN401
    """Determine the layout of a node's value for one image."""
    shape = tuple(value.shape[1:])
    if len(shape) == 3:
        axes = field.axes if field is not None else None
        # After windowed attention, the axes are unknown: take the two equal sides as height and width.
        last = axes == (1, 2) if axes is not None else shape[0] == shape[1] != shape[2]
        units, size = (shape[2], shape[:2]) if last else (shape[0], shape[1:])
        return UnitLayout(units=units, map_size=(size[0], size[1]), kind="channels_last" if last else "maps")
    if len(shape) == 2 and shape[0] > prefix_tokens:
        # Some networks add the class token late (CaiT) or do not declare it (VOLO).
        counts = (shape[0] - extra for extra in (prefix_tokens, 0, 1))
        tokens = next(
            (count for count in counts if count and math.isqrt(count) ** 2 == count), shape[0] - prefix_tokens
        )
        side = math.isqrt(tokens)
        return UnitLayout(
            units=shape[1],
            map_size=(side, side) if side**2 == tokens else (1, tokens),
            kind="tokens",
            prefix_tokens=shape[0] - tokens,
        )
    return UnitLayout(units=math.prod(shape), map_size=(1, 1), kind="vector")


def _square(layout: UnitLayout) -> bool:
    return layout.map_size[0] == layout.map_size[1]


def _local_field(field: ReceptiveField | None, layout: UnitLayout, size: Pair) -> ReceptiveField | None:
    """Return the receptive field of a position, or None if it is unknown or the whole image."""
    if field is None or field.whole or layout.kind == "vector":
        return None
    if layout.kind == "tokens":  # usable if there is one token per step, in reading order
        in_order = all(layout.map_size[axis] * field.jump[axis] == size[axis] for axis in (0, 1))
        return field if in_order else None
    return field if field.axes == ((2, 3) if layout.kind == "maps" else (1, 2)) else None
