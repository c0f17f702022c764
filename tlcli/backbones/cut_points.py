"""Find the places where a network can be cut, and the numbered layers between them.

A layer ends at the last place before the next weights where exactly one floating-point tensor crosses. So a norm,
activation, pooling or flattening belongs to the layer before it. Dropout belongs to the layer after it, because it
must be active when that layer is trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules.dropout import _DropoutNd

from tlcli.backbones.backbone import Backbone
from tlcli.backbones.graph import (
    TRACE_ERRORS,
    block_names,
    crossings,
    input_node,
    node_values,
    trace_graph,
)
from tlcli.backbones.heads import head_names


@dataclass(frozen=True, kw_only=True)
class LayerSpan:
    """A layer as a sequence of graph nodes; the network can be cut after the last one."""

    name: str
    nodes: tuple[fx.Node, ...]
    weighted: tuple[str, ...]
    """Names of the modules with weight matrices, in order."""
    end: fx.Node
    """The node whose value is the tensor that crosses the cut."""
    constants: dict[fx.Node, Any]
    """Numbers that cross the cut together with it and are the same for every image."""


@dataclass(frozen=True, kw_only=True)
class TracedNetwork:
    """A traced network: its graph, each node's value for one image, its layers and its heads."""

    graph: fx.Graph
    values: dict[fx.Node, Any]
    """Tensors on the meta device, other values as they are."""
    layers: tuple[LayerSpan, ...]
    """Empty if the network cannot be cut anywhere inside."""
    heads: tuple[fx.Node, ...]


def trace_backbone(backbone: Backbone) -> TracedNetwork | None:
    """Trace the network in eval mode and find its layers; the result is kept in `backbone`.

    Returns:
        None if the network cannot be traced.
    """
    if "eval" not in backbone.trace_cache:
        backbone.trace_cache["eval"] = _trace(backbone)
    traced: TracedNetwork | None = backbone.trace_cache["eval"]
    return traced


def _trace(backbone: Backbone) -> TracedNetwork | None:
    model, spec = backbone.model, backbone.input
    shape = (1, spec.channels, spec.height, spec.width)
    try:
        graph = trace_graph(model, block_names(model))
        values = node_values(model, graph, shape)
    except TRACE_ERRORS:
        return None
    names = head_names(model)
    heads = tuple(node for node in graph.nodes if node.op == "call_module" and node.target in names)
    if len(heads) != len(names):
        return None
    return TracedNetwork(graph=graph, values=values, layers=_layers(model, graph, values, heads, shape), heads=heads)


def _layers(
    model: nn.Module, graph: fx.Graph, values: dict[fx.Node, Any], heads: tuple[fx.Node, ...], shape: tuple[int, ...]
) -> tuple[LayerSpan, ...]:
    nodes = list(graph.nodes)
    order = {node: index for index, node in enumerate(nodes)}
    stop = min((order[head] for head in heads), default=len(nodes) - 1)
    starts = [index for index in range(stop) if _has_matrix(model, nodes[index])]
    cuts = _cuts(graph, values, model, shape)
    layers: list[LayerSpan] = []
    names: set[str] = set()
    begin, pending = 0, list[str]()
    for start, following in zip(starts, [*starts[1:], stop], strict=True):
        pending.append(str(nodes[start].target))
        gap = range(start, following)
        dropout = next((index for index in gap if is_dropout(model, nodes[index])), following)
        last = next((index for index in reversed(range(start, dropout)) if index in cuts), None)
        if last is None:
            continue
        end, constants = cuts[last]
        name = _layer_name(pending, names)
        names.add(name)
        layers.append(
            LayerSpan(
                name=name,
                nodes=tuple(nodes[begin : last + 1]),
                weighted=tuple(pending),
                end=end,
                constants=constants,
            )
        )
        begin, pending = last + 1, []
    return tuple(layers)


def _cuts(
    graph: fx.Graph, values: dict[fx.Node, Any], model: nn.Module, shape: tuple[int, ...]
) -> dict[int, tuple[fx.Node, dict[fx.Node, Any]]]:
    """Map positions in the graph to the only tensor that crosses after them, and the constant numbers beside it."""
    doubled: dict[fx.Node, Any] | None = None
    found = {}
    for index, crossing in enumerate(crossings(graph)):
        tensors = [node for node in crossing if not _is_number(values[node])]
        if len(tensors) != 1 or not _is_feature(values[tensors[0]]) or tensors[0] is input_node(graph):
            continue
        numbers = {node: values[node] for node in crossing if node is not tensors[0]}
        if numbers:
            doubled = doubled or node_values(model, graph, (2, *shape[1:]))
            if any(doubled[node] != value for node, value in numbers.items()):
                continue  # it depends on the batch size
        found[index] = (tensors[0], numbers)
    return found


def _is_number(value: Any) -> bool:  # noqa: ANN401
    """Return whether a value is a number or a sequence of numbers, such as a size."""
    return isinstance(value, int | float) or (isinstance(value, list | tuple) and all(map(_is_number, value)))


def _is_feature(value: Any) -> bool:  # noqa: ANN401
    """Return whether a value is a floating-point tensor with one entry per image."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 2 and value.shape[0] == 1


def _has_matrix(model: nn.Module, node: fx.Node) -> bool:
    """Return whether the node runs a module with a weight matrix or filters; norms and scales have only vectors."""
    if node.op != "call_module":
        return False
    parameters = model.get_submodule(str(node.target)).parameters()
    return any(p.ndim >= 2 and p.numel() > max(p.shape) for p in parameters)


def is_dropout(model: nn.Module, node: fx.Node) -> bool:
    """Return whether the node is dropout, stochastic depth or similar, with a rate above 0."""
    if node.op == "call_function":
        return "dropout" in getattr(node.target, "__name__", "")
    if node.op != "call_module":
        return False
    module = model.get_submodule(str(node.target))
    if isinstance(module, _DropoutNd):
        return module.p > 0
    return any(bool(getattr(module, rate, 0.0)) for rate in ("drop_prob", "prob") if "Drop" in type(module).__name__)


def _layer_name(weighted: list[str], taken: set[str]) -> str:
    """Return the name of the layer's module, or the longest path that its modules share."""
    if len(weighted) == 1:
        common = weighted[0]
    else:
        paths = [name.split(".") for name in weighted]
        common = ".".join(
            parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
        )
    ambiguous = any(other == common or other.startswith(f"{common}.") for other in taken)
    return weighted[-1] if not common or ambiguous else common


def parameter_count(model: nn.Module, nodes: tuple[fx.Node, ...]) -> int:
    """Count the parameters that these nodes use, each of them once."""
    found: dict[int, int] = {}
    for node in nodes:
        if node.op == "call_module":
            for parameter in model.get_submodule(str(node.target)).parameters():
                found[id(parameter)] = parameter.numel()
        elif node.op == "get_attr" and isinstance(value := _attribute(model, str(node.target)), nn.Parameter):
            found[id(value)] = math.prod(value.shape)
    return sum(found.values())


def _attribute(model: nn.Module, path: str) -> Any:  # noqa: ANN401
    owner, _, name = path.rpartition(".")
    return getattr(model.get_submodule(owner), name)
