"""Cut a network in two: a frozen prefix, which is a constant function, and a trainable tail.

Prefix and tail share the modules of the original network, so training the tail trains that network, and the network's
own state dict is what is saved.

Shapes: B images of H x W pixels with C channels, D features, k classes.
"""

from __future__ import annotations

import difflib
from typing import Any, Self

import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import DualGraphModule

from tlcli.backbones.backbone import Backbone, Cut
from tlcli.backbones.cut_points import TracedNetwork, is_dropout, trace_backbone
from tlcli.backbones.graph import TRACE_ERRORS, block_names, copy_subgraph, input_node, node_ids, trace_graph
from tlcli.backbones.heads import Head, HeadInput, MeanOfHeads, head_modules
from tlcli.errors import UsageError


class FrozenPrefix(nn.Module):
    """A part of a network that never changes: no gradients, and BatchNorm and dropout always in eval mode.

    Args:
        network: float [B, C, H, W] to features.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever `mode` is."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute features [B, ...] of images [B, C, H, W]."""
        if not torch.compiler.is_compiling() and any(module.training for module in self.network.modules()):
            self.eval()  # train() was called on the whole network, which shares these modules
        features: Tensor = self.network(images)
        return features


def cut_at(backbone: Backbone, freeze: str) -> Cut:
    """Cut a network after a layer.

    Args:
        backbone: The network. Its parameters require gradients in the tail only, from now on.
        freeze: "all", "none", the number or name of a layer, or the name of a stage, which means its last layer.

    Raises:
        UsageError: There is no such layer, or the network cannot be cut there.
    """
    model = backbone.model.eval()
    traced = trace_backbone(backbone)
    of = max(1, len(traced.layers)) if traced else 1
    model.requires_grad_(True)
    if freeze == "none":
        spec = backbone.input
        shape = (spec.channels, spec.height, spec.width)
        return Cut(split=lambda: (nn.Identity(), model), layer=0, name="", of=of, feature_shape=shape)
    if freeze == "all":
        return _cut_before_head(backbone, traced, of)
    if traced is None or not traced.layers:
        _averageable_heads(backbone)  # raises if --freeze all is impossible, too
        what = "be traced" if traced is None else "be cut between layers"
        raise UsageError(f"--freeze {freeze}: {backbone.name} cannot {what}. Use --freeze all or --freeze none.")
    number = layer_number(freeze, [layer.name for layer in traced.layers], backbone.name)
    layer = traced.layers[number - 1]
    train_graph = _trace_in_train_mode(model)
    pieces = _pieces(model, traced, train_graph, layer.end, layer.constants)
    if pieces is None:
        raise UsageError(
            f"--freeze {freeze}: {backbone.name} cannot be cut after layer {number} ({layer.name}), because its "
            f"forward pass differs in training mode there. {_nearest_cuts(model, traced, train_graph, number)}"
        )
    shape = tuple(traced.values[layer.end].shape[1:])
    return _cut(*pieces, number, layer.name, of, shape[:1] if _is_vector(shape) else shape)


def layer_number(freeze: str, names: list[str], backbone: str) -> int:
    """Return the number of a layer given by number or name.

    Args:
        freeze: "7", "blocks.3.1", or "blocks.3" for the last layer of a stage.
        names: Names of the layers, in order.
        backbone: Name of the backbone, for messages.

    Raises:
        UsageError: There is no such layer; the message names the nearest ones.
    """
    hint = f"`tlcli layers {backbone}` lists the layers."
    if freeze.lstrip("-").isdecimal():
        number = int(freeze)
        if 1 <= number <= len(names):
            return number
        none = "Use --freeze none to freeze nothing. " if number < 1 else ""
        raise UsageError(f"--freeze {freeze}: {backbone} has no such layer. {_valid_numbers(len(names))} {none}{hint}")
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
            f"--freeze {freeze}: {backbone} cannot be cut inside layer {index} ({names[index - 1]}). "
            f"The nearest valid values are {before} and {index} ({names[index - 1]})."
        )
    close = difflib.get_close_matches(freeze, ["auto", "all", "none", *names], n=3, cutoff=0.4)
    guess = f"Did you mean {', '.join(close)}? " if close else ""
    raise UsageError(f"--freeze {freeze}: {backbone} has no layer with this name. {guess}{hint}")


def _valid_numbers(of: int) -> str:
    return f"Valid numbers are 1 to {of}." if of > 1 else "The only valid number is 1 (everything before the head)."


def _nearest_cuts(model: nn.Module, traced: TracedNetwork, train_graph: fx.Graph | None, number: int) -> str:
    """Return a sentence with the nearest layers before and after an invalid one where the network can be cut."""

    def is_valid(other: int) -> bool:
        layer = traced.layers[other - 1]
        return _pieces(model, traced, train_graph, layer.end, layer.constants) is not None

    before = next(filter(is_valid, range(number - 1, 0, -1)), None)
    after = next(filter(is_valid, range(number + 1, len(traced.layers) + 1)), None)
    names = [f"{n} ({traced.layers[n - 1].name})" if n else end for n, end in ((before, "none"), (after, "all"))]
    return f"The nearest valid values are {names[0]} and {names[1]}."


def _cut(prefix: nn.Module, tail: nn.Module, number: int, name: str, of: int, feature_shape: tuple[int, ...]) -> Cut:
    pieces = FrozenPrefix(prefix), tail
    return Cut(split=lambda: pieces, layer=number, name=name, of=of, feature_shape=feature_shape)


def _cut_before_head(backbone: Backbone, traced: TracedNetwork | None, of: int) -> Cut:
    """Cut where the head gets its input vector; dropout before the head stays in the tail."""
    model, heads = backbone.model, _averageable_heads(backbone)
    pieces: tuple[nn.Module, nn.Module] | None = None
    if traced is not None:
        ends = [_before_dropout(model, head.all_input_nodes[0]) for head in traced.heads]
        shapes = {tuple(traced.values[end].shape[1:]) for end in ends}
        if len(ends) == 1 and _is_vector(*shapes):
            pieces = _pieces(model, traced, _trace_in_train_mode(model), ends[0], {})
        if not all(map(_is_vector, shapes)):
            raise UsageError(
                f"--freeze all: the input of the head of {backbone.name} has shape {shapes.pop()} and is not a vector. "
                "Use --freeze with a layer number, or another backbone."
            )
        if pieces is None:
            graph = copy_subgraph(traced.graph, input_node(traced.graph), ends, {}, flatten=True)
            pieces = (fx.GraphModule(model, graph), MeanOfHeads(heads)) if graph is not None else None
    if pieces is None:
        pieces = HeadInput(model, heads), MeanOfHeads(heads)
    name = traced.layers[-1].name if traced and traced.layers else "all"
    cut = _cut(*pieces, of, name, of, (heads[0].weight.shape[1],))
    cut.tail.requires_grad_(True)  # without a trace, the prefix contains the heads too
    return cut


def _averageable_heads(backbone: Backbone) -> list[Head]:
    """Return the heads, or raise a `UsageError` if no single vector enters them."""
    heads = head_modules(backbone.model)
    if not heads or len({head.weight.shape[1:] for head in heads}) > 1:
        what = "averages heads of different sizes" if heads else "has no head"
        raise UsageError(
            f"{backbone.name} {what}, so it cannot be frozen up to the head. Use --freeze none, or another backbone."
        )
    return heads


def _is_vector(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 1 and all(side == 1 for side in shape[1:])


def _before_dropout(model: nn.Module, node: fx.Node) -> fx.Node:
    while is_dropout(model, node):
        node = node.all_input_nodes[0]
    return node


def _trace_in_train_mode(model: nn.Module) -> fx.Graph | None:
    """Return the graph in train mode, where dropout outside the blocks is active; None if it cannot be traced."""
    try:
        return trace_graph(model.train(), block_names(model))
    except TRACE_ERRORS:
        return None
    finally:
        model.eval()


def _pieces(
    model: nn.Module, traced: TracedNetwork, train_graph: fx.Graph | None, end: fx.Node, constants: dict[fx.Node, Any]
) -> tuple[nn.Module, nn.Module] | None:
    """Return prefix and tail before and after the value of `end`.

    Args:
        model: The network to cut.
        traced: Its graph in eval mode.
        train_graph: Its graph in train mode.
        end: The node in the eval graph whose value crosses the cut.
        constants: The numbers that cross beside it, by node of the eval graph.

    Returns:
        None if the forward pass differs in train mode, so that more than one tensor would cross.
    """
    if train_graph is None:
        return None
    shape = tuple(traced.values[end].shape[1:])
    flatten = len(shape) > 1 and _is_vector(shape)
    unflatten = shape if flatten else None
    prefix = copy_subgraph(traced.graph, input_node(traced.graph), [end], {}, flatten=flatten)
    eval_tail = _tail_graph(traced.graph, end, constants, unflatten)
    ids = node_ids(traced.graph)
    train_nodes = {node_id: node for node, node_id in node_ids(train_graph).items()}
    if any(ids[node] not in train_nodes for node in (end, *constants)):
        return None
    train_constants = {train_nodes[ids[node]]: value for node, value in constants.items()}
    train_tail = _tail_graph(train_graph, train_nodes[ids[end]], train_constants, unflatten)
    if prefix is None or eval_tail is None or train_tail is None:
        return None
    return fx.GraphModule(model, prefix), DualGraphModule(model, train_tail, eval_tail).eval()


def _tail_graph(
    graph: fx.Graph, end: fx.Node, constants: dict[fx.Node, Any], unflatten: tuple[int, ...] | None
) -> fx.Graph | None:
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    return copy_subgraph(graph, end, [output.all_input_nodes[0]], constants, unflatten=unflatten)
