"""Cutting a network in two: a frozen prefix, which is a constant function, and a tail that is trained.

Both run the network's own modules: what is trained and saved is always the network itself.

Shapes: B images, C channels, D features, k classes.
"""

from __future__ import annotations

import difflib
import operator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import DualGraphModule

from tlcli.backbones.build import Backbone
from tlcli.backbones.cut_points import TracedNetwork, is_dropout, trace_backbone
from tlcli.backbones.graph import TRACE_ERRORS, block_names, input_node, node_ids, trace_graph
from tlcli.backbones.heads import Head, HeadInput, MeanOfHeads, head_modules
from tlcli.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A network in two pieces; in eval mode tail(prefix(images)) is the whole network, bit for bit."""

    prefix: nn.Module
    """float [B, C, H, W] to features [B, *feature_shape]; stays in eval mode, its parameters need no gradient"""
    tail: nn.Module
    """features to logits [B, k]; dropout and stochastic depth are alive in it while it is in train mode"""
    layer: int
    """the cut is behind this layer; 0 when nothing is frozen"""
    name: str
    """of that layer; empty when nothing is frozen"""
    of: int
    """how many layers there are"""
    feature_shape: tuple[int, ...]


class FrozenPrefix(nn.Module):
    """A piece of a network that never changes: no gradients, and BatchNorm and dropout as in prediction for ever.

    Args:
        network: float [B, C, H, W] to features.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever is asked."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features of a batch."""
        if not torch.compiler.is_compiling() and any(module.training for module in self.network.modules()):
            self.eval()  # somebody called train() on the whole network, which shares these modules
        features: Tensor = self.network(images)
        return features


def cut_at(backbone: Backbone, freeze: str) -> Cut:
    """Cut a network behind a layer.

    Args:
        backbone: The network; from now on the prefix's parameters need no gradient and the tail's do.
        freeze: "all", "none", a layer's number, or its name (or a stage's: the last layer in it).

    Raises:
        UsageError: There is no such layer, or the network can't be cut there.
    """
    backbone.model.eval()
    plan = trace_backbone(backbone)
    of = max(1, len(plan.rows)) if plan else 1
    backbone.model.requires_grad_(True)
    if freeze == "none":
        spec = backbone.input
        shape = (spec.channels, spec.height, spec.width)
        return Cut(prefix=nn.Identity(), tail=backbone.model, layer=0, name="", of=of, feature_shape=shape)
    if freeze == "all":
        return _cut_before_head(backbone, plan, of)
    if plan is None or not plan.rows:
        _heads(backbone)  # says so where not even all of it can be frozen
        what = "be traced" if plan is None else "be cut anywhere inside"
        raise UsageError(
            f"--freeze {freeze}: {backbone.name} can't {what}, so it can be cut only with --freeze all or none."
        )
    number = layer_number(freeze, [row.name for row in plan.rows], backbone.name)
    row = plan.rows[number - 1]
    trained = _training_graph(backbone.model)
    pieces = _pieces(backbone.model, plan, trained, row.end, row.constants)
    if pieces is None:
        raise UsageError(
            f"--freeze {freeze}: {backbone.name} can't be cut behind layer {number} ({row.name}): in training it takes "
            f"another way there. {_nearest(backbone.model, plan, trained, number)}"
        )
    shape = tuple(plan.values[row.end].shape[1:])
    return _cut(*pieces, number, row.name, of, shape[:1] if _is_vector(shape) else shape)


def layer_number(freeze: str, names: list[str], backbone: str) -> int:
    """The number of a layer that was given by number or name.

    Args:
        freeze: "7", "blocks.3.1", or "blocks.3" for the last layer of a stage.
        names: Of the layers, in order.
        backbone: For the message.

    Raises:
        UsageError: There is no such layer; the message names the nearest that there are.
    """
    see = f"`tlcli layers {backbone}` lists them"
    if freeze.lstrip("-").isdecimal():
        number = int(freeze)
        if 1 <= number <= len(names):
            return number
        what = "--freeze none freezes nothing; " if number < 1 else ""
        raise UsageError(f"--freeze {freeze}: {backbone} has no such layer. {what}{_depths(len(names))}; {see}.")
    inside = [index for index, name in enumerate(names, 1) if name == freeze] or [
        index for index, name in enumerate(names, 1) if name.startswith(f"{freeze}.")
    ]
    if inside:
        return inside[-1]
    around = [index for index, name in enumerate(names, 1) if freeze.startswith(f"{name}.")]
    if around:
        index = around[-1]
        before = f"{index - 1} ({names[index - 2]})" if index > 1 else "none"
        raise UsageError(
            f"--freeze {freeze}: {backbone} can't be cut inside layer {index} ({names[index - 1]}). "
            f"The nearest depths that work are {before} and {index} ({names[index - 1]})."
        )
    close = difflib.get_close_matches(freeze, names, n=3, cutoff=0.4)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    raise UsageError(f"--freeze {freeze}: {backbone} has no layer of this name.{hint} {see[0].upper()}{see[1:]}.")


def _depths(of: int) -> str:
    return f"1 to {of} work" if of > 1 else "Only 1 (everything before the head) works"


def _nearest(model: nn.Module, plan: TracedNetwork, trained: fx.Graph | None, number: int) -> str:
    """A sentence with the depths that work around one that doesn't."""

    def works(other: int) -> bool:
        row = plan.rows[other - 1]
        return _pieces(model, plan, trained, row.end, row.constants) is not None

    before = next(filter(works, range(number - 1, 0, -1)), None)
    after = next(filter(works, range(number + 1, len(plan.rows) + 1)), None)
    names = [f"{n} ({plan.rows[n - 1].name})" if n else end for n, end in ((before, "none"), (after, "all"))]
    return f"The nearest depths that work are {names[0]} and {names[1]}."


def _cut(prefix: nn.Module, tail: nn.Module, number: int, name: str, of: int, feature_shape: tuple[int, ...]) -> Cut:
    return Cut(prefix=FrozenPrefix(prefix), tail=tail, layer=number, name=name, of=of, feature_shape=feature_shape)


def _cut_before_head(backbone: Backbone, plan: TracedNetwork | None, of: int) -> Cut:
    """The feature is the vector that the head sees; dropout before the head stays in the tail."""
    model, heads = backbone.model, _heads(backbone)
    pieces: tuple[nn.Module, nn.Module] | None = None
    if plan is not None:
        ends = [_before_dropout(model, head.all_input_nodes[0]) for head in plan.heads]
        shapes = {tuple(plan.values[end].shape[1:]) for end in ends}
        if len(ends) == 1 and _is_vector(*shapes):
            pieces = _pieces(model, plan, _training_graph(model), ends[0], {})
        if not all(map(_is_vector, shapes)):
            raise UsageError(
                f"The head of {backbone.name} sees {shapes.pop()}, not a vector: it can't be frozen up to the head. "
                "Give --freeze a number, or use another backbone."
            )
        if pieces is None:
            graph = _subgraph(plan.graph, input_node(plan.graph), ends, {}, flatten=True)
            pieces = (fx.GraphModule(model, graph), MeanOfHeads(heads)) if graph is not None else None
    if pieces is None:
        pieces = HeadInput(model, heads), MeanOfHeads(heads)
    name = plan.rows[-1].name if plan and plan.rows else "all"
    cut = _cut(*pieces, of, name, of, (heads[0].weight.shape[1],))
    cut.tail.requires_grad_(True)  # where nothing can be traced, the prefix runs the heads too
    return cut


def _heads(backbone: Backbone) -> list[Head]:
    """The heads, where everything before them can be frozen."""
    heads = head_modules(backbone.model)
    if not heads or len({head.weight.shape[1:] for head in heads}) > 1:
        what = "averages heads of different sizes" if heads else "has no head"
        raise UsageError(
            f"{backbone.name} {what}: it can't be frozen up to the head. Use --freeze none, or another backbone."
        )
    return heads


def _is_vector(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 1 and all(side == 1 for side in shape[1:])


def _before_dropout(model: nn.Module, node: fx.Node) -> fx.Node:
    while is_dropout(model, node):
        node = node.all_input_nodes[0]
    return node


def _training_graph(model: nn.Module) -> fx.Graph | None:
    """The graph in train mode, in which dropout outside the blocks is alive; None where it can't be traced."""
    try:
        return trace_graph(model.train(), block_names(model))
    except TRACE_ERRORS:
        return None
    finally:
        model.eval()


def _pieces(
    model: nn.Module, plan: TracedNetwork, trained: fx.Graph | None, end: fx.Node, constants: dict[fx.Node, Any]
) -> tuple[nn.Module, nn.Module] | None:
    """Prefix and tail around the value of `end`; None where training takes another way through the network."""
    if trained is None:
        return None
    shape = tuple(plan.values[end].shape[1:])
    flatten = len(shape) > 1 and _is_vector(shape)
    before = _subgraph(plan.graph, input_node(plan.graph), [end], {}, flatten=flatten)
    eval_graph = _tail_graph(plan.graph, end, constants, shape if flatten else None)
    at = {place: node for node, place in node_ids(trained).items()}
    place_of = node_ids(plan.graph)
    if place_of[end] not in at or any(place_of[node] not in at for node in constants):
        return None
    numbers = {at[place_of[node]]: value for node, value in constants.items()}
    train_graph = _tail_graph(trained, at[place_of[end]], numbers, shape if flatten else None)
    if before is None or eval_graph is None or train_graph is None:
        return None
    prefix = fx.GraphModule(model, before)
    tail = DualGraphModule(model, train_graph, eval_graph).eval()
    return prefix, tail


def _tail_graph(
    graph: fx.Graph, end: fx.Node, constants: dict[fx.Node, Any], unflatten: tuple[int, ...] | None
) -> fx.Graph | None:
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    return _subgraph(graph, end, [output.all_input_nodes[0]], constants, unflatten=unflatten)


def _subgraph(
    graph: fx.Graph,
    start: fx.Node,
    ends: list[fx.Node],
    constants: dict[fx.Node, Any],
    *,
    flatten: bool = False,
    unflatten: tuple[int, ...] | None = None,
) -> fx.Graph | None:
    """A new graph from the value of `start` to the mean of `ends`.

    Args:
        graph: To copy nodes from.
        start: Whose value comes in.
        ends: Whose values' mean goes out.
        constants: Nodes with known values.
        flatten: Whether what goes out becomes [B, D].
        unflatten: The shape, without the batch, of which [B, D] comes in.

    Returns:
        None when more than the value of `start` is needed.
    """
    needed: set[fx.Node] = set()
    pending = [end for end in ends if end is not start]
    while pending:
        node = pending.pop()
        if node in needed or node in constants:
            continue
        if node.op == "placeholder":
            return None
        needed.add(node)
        pending.extend(source for source in node.all_input_nodes if source is not start)
    copy = fx.Graph()
    incoming = copy.placeholder("features" if start is not input_node(graph) else "images")
    if unflatten is not None:
        incoming = copy.call_function(torch.reshape, (incoming, (-1, *unflatten)))
    copied: dict[fx.Node, Any] = {**constants, start: incoming}
    for node in graph.nodes:
        if node in needed:
            copied[node] = copy.node_copy(node, copied.__getitem__)
    values = [copied[end] for end in ends]
    if flatten:
        values = [copy.call_function(torch.flatten, (value, 1)) for value in values]
    total = values[0]
    for value in values[1:]:
        total = copy.call_function(operator.add, (total, value))
    copy.output(copy.call_function(operator.truediv, (total, len(values))) if len(values) > 1 else total)
    return copy
