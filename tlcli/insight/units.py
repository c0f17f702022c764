"""Which layers to look into, what their units are, and where these look.

A unit is a channel of maps [C, H, W] (or [H, W, C]), a dimension of tokens [T, D], or an entry of a vector [D]. Where a
layer ends in pooling or flattening to a vector, its units are those of the maps before.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from tlcli.backbones.build import Backbone
from tlcli.backbones.cut_points import LayerSpan, TracedNetwork, trace_backbone
from tlcli.backbones.layer_table import Layer, layer_table
from tlcli.backbones.receptive_field import ReceptiveField, ReceptiveFieldTracker, track_receptive_fields
from tlcli.errors import UsageError
from tlcli.insight.receptive_boxes import Pair, Sight

BEFORE, AFTER = "before", "after"

LAYERS = 5
"""Layers to show where nobody chose."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How units and places lie in a tensor, the batch left out."""

    units: int
    places: Pair
    """height and width of a unit's map; (1, 1) where there are no places"""
    kind: str
    """"maps" [C, H, W], "last" [H, W, C], "tokens" [T, D] or "vector" [D]"""
    before: int = 0
    """tokens that stand for no place, such as a class token; they come first"""

    def maps(self, values: Tensor) -> Tensor:
        """[B, ...] as it leaves the layer, to the maps of its units: [B, U, H, W]."""
        match self.kind:
            case "maps":
                return values
            case "last":
                return values.permute(0, 3, 1, 2)
            case "tokens":
                return values[:, self.before :].transpose(1, 2).reshape(len(values), self.units, *self.places)
            case _:
                return values.flatten(1)[:, :, None, None]

    def back(self, maps: Tensor, values: Tensor) -> Tensor:
        """`maps` of [B, ...] as `values`, which they were made of, a new tensor; tokens without a place stay."""
        match self.kind:
            case "maps":
                return maps.clone()
            case "last":
                return maps.permute(0, 2, 3, 1).clone()
            case "tokens":
                return torch.cat([values[:, : self.before], maps.flatten(2).transpose(1, 2)], 1)
            case _:
                return maps.reshape(values.shape).clone()


@dataclass(frozen=True, kw_only=True)
class Tap:
    """A layer to look into."""

    layer: Layer
    node: fx.Node
    """whose value holds the activations"""
    layout: Layout
    sight: Sight
    stage: str | None = None
    """"before" or "after" fine-tuning; None where there was none, or it left the layer as it was"""

    @property
    def before(self) -> bool:
        """Whether the activations are those of the network before fine-tuning."""
        return self.stage == BEFORE


def choose_taps(backbone: Backbone, asked: tuple[str, ...]) -> list[Tap]:
    """The layers asked for, or `LAYERS` spread from first to last, in the order in which data passes.

    Args:
        backbone: On any device.
        asked: Numbers or names, as `tlcli layers` shows them; the name of a stage stands for its last layer.

    Raises:
        UsageError: there is no such layer, or the network can't be traced.
    """
    traced = _trace(backbone)
    names = [row.name for row in traced.layers]
    if asked:
        numbers = sorted({_number(text, names, backbone.name) for text in asked})
    else:
        count = min(LAYERS, len(names))
        numbers = sorted({1 + round(index * (len(names) - 1) / max(count - 1, 1)) for index in range(count)})
    return list(_taps(backbone, traced, numbers))


def mapped_taps(backbone: Backbone) -> Iterator[Tap]:
    """The layers whose units have maps of more than one place in rows and columns, from last to first.

    Args:
        backbone: On any device.

    Raises:
        UsageError: the network can't be traced.
    """
    traced = _trace(backbone)
    taps = _taps(backbone, traced, range(len(traced.layers), 0, -1))
    return (tap for tap in taps if tap.layout.places != (1, 1) and (tap.layout.kind != "tokens" or _square(tap.layout)))


def _trace(backbone: Backbone) -> TracedNetwork:
    traced = trace_backbone(backbone)
    if traced is None or not traced.layers:
        raise UsageError(
            f"{backbone.name} can't be traced, so nothing between its input and its head can be told apart. "
            "Use another backbone."
        )
    return traced


def _taps(backbone: Backbone, traced: TracedNetwork, numbers: Iterable[int]) -> Iterator[Tap]:
    """The layers with these numbers."""
    table, spec = layer_table(backbone).layers, backbone.input
    tracker = track_receptive_fields(backbone.model, traced.graph, (1, spec.channels, spec.height, spec.width))
    return (_tap(backbone, traced, tracker, table[number - 1], traced.layers[number - 1]) for number in numbers)


def _number(text: str, names: list[str], backbone: str) -> int:
    """The number of a layer that was given by number or name."""
    see = f"`tlcli layers {backbone}` lists them"
    if text.lstrip("-").isdecimal():
        if 1 <= int(text) <= len(names):
            return int(text)
        raise UsageError(f"--layer {text}: {backbone} has layers 1 to {len(names)}; {see}.")
    found = [index for index, name in enumerate(names, 1) if name == text or name.startswith(f"{text}.")]
    if found:
        return found[-1]
    close = difflib.get_close_matches(text, names, n=3, cutoff=0.4)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    raise UsageError(f"--layer {text}: {backbone} has no layer of this name.{hint} {see[0].upper()}{see[1:]}.")


def _tap(
    backbone: Backbone, traced: TracedNetwork, tracker: ReceptiveFieldTracker, layer: Layer, row: LayerSpan
) -> Tap:
    before = int(getattr(backbone.model, "num_prefix_tokens", 0))
    node, layout = row.end, _layout(traced.values[row.end], tracker.fields.get(row.end), before)
    if layout.places == (1, 1):  # pooled or flattened: look at the maps before
        for earlier in reversed(row.nodes):
            value, field = traced.values[earlier], tracker.fields.get(earlier)
            if not isinstance(value, Tensor) or value.ndim < 3 or field is None:
                continue
            found = _layout(value, field, before)
            if found.places != (1, 1):
                node, layout = earlier, found
                break
    image = (backbone.input.height, backbone.input.width)
    field = _exact(tracker.fields.get(node), layout, image)
    return Tap(layer=layer, node=node, layout=layout, sight=Sight(image=image, places=layout.places, field=field))


def _layout(value: Any, field: ReceptiveField | None, before: int) -> Layout:  # noqa: ANN401
    """How units and places lie in the value of a node for one image."""
    shape = tuple(value.shape[1:])
    if len(shape) == 3:
        axes = field.axes if field is not None else None
        # Nobody knows the axes behind attention in windows; then the two sides that are alike are height and width.
        last = axes == (1, 2) if axes is not None else shape[0] == shape[1] != shape[2]
        units, places = (shape[2], shape[:2]) if last else (shape[0], shape[1:])
        return Layout(units=units, places=(places[0], places[1]), kind="last" if last else "maps")
    if len(shape) == 2 and shape[0] > before:
        # Networks with a class token add it late (CaiT), or don't say that they have one (VOLO).
        counts = (shape[0] - extra for extra in (before, 0, 1))
        tokens = next((count for count in counts if count and math.isqrt(count) ** 2 == count), shape[0] - before)
        side = math.isqrt(tokens)
        return Layout(
            units=shape[1],
            places=(side, side) if side**2 == tokens else (1, tokens),
            kind="tokens",
            before=shape[0] - tokens,
        )
    return Layout(units=math.prod(shape), places=(1, 1), kind="vector")


def _square(layout: Layout) -> bool:
    return layout.places[0] == layout.places[1]


def _exact(field: ReceptiveField | None, layout: Layout, image: Pair) -> ReceptiveField | None:
    """The field of each place, where it isn't the whole image."""
    if field is None or field.whole or layout.kind == "vector":
        return None
    if layout.kind == "tokens":  # patches in reading order, where there is one for each step
        in_order = all(layout.places[axis] * field.jump[axis] == image[axis] for axis in (0, 1))
        return field if in_order else None
    return field if field.axes == ((2, 3) if layout.kind == "maps" else (1, 2)) else None


def stages(taps: Sequence[Tap], *, frozen: int | None, compare: bool) -> list[Tap]:
    """Each layer once, and one that was trained before and after.

    Args:
        taps: Of one network.
        frozen: Layers that fine-tuning left as they were; None where there was none.
        compare: Whether the network before fine-tuning is to be had.
    """
    found = []
    for tap in taps:
        if frozen is None or tap.layer.number <= frozen:
            found.append(tap)
        else:
            found += [replace(tap, stage=stage) for stage in (BEFORE, AFTER) if stage == AFTER or compare]
    return found


def several(
    model: nn.Module,
    traced: TracedNetwork,
    taps: Sequence[Tap],
    *,
    start: nn.Module | None = None,
    frozen: int | None = None,
) -> fx.GraphModule:
    """Images float [B, C, H, W] to a tuple of what leaves each of several layers, in one pass.

    Values that end in ReLU6 come without its upper limit: images beyond it would all tie, with a gradient of 0. Later
    layers get them with the limit.

    Args:
        model: The network.
        traced: The traced network.
        taps: The layers.
        start: The network before fine-tuning, for taps of that stage.
        frozen: Layers that both have in common, which are computed once.
    """
    networks = nn.ModuleDict({AFTER: model, BEFORE: start or model})
    common = {node for row in traced.layers[: frozen or 0] for node in row.nodes}
    graph, shared = fx.Graph(), dict[fx.Node, fx.Node]()
    outputs: dict[int, fx.Node] = {}
    for stage in (AFTER, BEFORE):
        asked = {number: tap.node for number, tap in enumerate(taps) if tap.before == (stage == BEFORE)}
        copied = _copy(graph, traced, set(asked.values()), stage, shared)
        shared |= {node: twin for node, twin in copied.items() if node in common or node.op == "placeholder"}
        for number, node in asked.items():
            outputs[number] = copied[node]
            free = _unlimited(networks[stage].get_submodule(str(node.target))) if node.op == "call_module" else None
            if free is not None:
                networks[f"unlimited_{number}"] = free
                outputs[number] = graph.call_module(f"unlimited_{number}", copied[node].args)
    graph.output(tuple(outputs[number] for number in range(len(taps))))
    return fx.GraphModule(networks, graph)


def _copy(
    graph: fx.Graph, traced: TracedNetwork, wanted: set[fx.Node], stage: str, shared: Mapping[fx.Node, fx.Node]
) -> dict[fx.Node, fx.Node]:
    """Copy the nodes of a traced network up to the last one wanted, with the modules of a stage, except shared ones."""
    copied = dict(shared)
    for node in traced.graph.nodes:
        if not wanted:
            break
        if node not in copied:
            copied[node] = graph.node_copy(node, copied.__getitem__)
            if node.op in {"call_module", "get_attr"}:
                copied[node].target = f"{stage}.{node.target}"
        wanted.discard(node)
    return copied


def _unlimited(module: nn.Module) -> nn.Module | None:
    """The module, with its parameters, ending in ReLU in place of ReLU6; None where it ends otherwise."""
    if isinstance(module, nn.ReLU6):
        return nn.ReLU()
    if type(module).__module__ != "timm.layers.norm_act" or not isinstance(getattr(module, "act", None), nn.ReLU6):
        return None
    twin = copy.copy(module)
    twin.__dict__["_modules"] = {**twin.__dict__["_modules"], "act": nn.ReLU()}
    return twin


class Maxima(nn.Module):
    """Images to the activation of every unit of several layers: its maximum over places.

    Args:
        network: What `several` made, in eval mode.
        taps: Its layers.
    """

    def __init__(self, network: nn.Module, taps: Sequence[Tap]) -> None:
        super().__init__()
        self.network = network
        self._layouts = [tap.layout for tap in taps]

    def forward(self, images: Tensor) -> Tensor:
        """Images float [B, C, H, W], normalized, to float [B, U], the layers' units one after another."""
        values = self.network(images)
        return torch.cat(
            [layout.maps(value).amax((2, 3)).float() for layout, value in zip(self._layouts, values, strict=True)], 1
        )
