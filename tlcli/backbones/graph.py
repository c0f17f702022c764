"""Trace a network into a graph whose nodes are whole blocks, and find which values cross each point of it.

timm defines the blocks: `model.group_matcher()` assigns parameter names to groups. The largest modules whose parameters
belong to a single group stay whole in the graph and run unchanged, with their own dropout and stochastic depth. So
tracing is fast, and nothing inside a block needs to be traceable.
"""

from __future__ import annotations

import copy
import inspect
import operator
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable
from typing import Any, TypeVar

import torch
from timm.models._features_fx import get_notrace_functions, get_notrace_modules
from timm.models.vgg import ConvMlp
from torch import Tensor, fx, nn

from tlcli.backbones.heads import head_names

T = TypeVar("T")
NodeId = tuple[str, str, int]
"""Identifies a node across traces: the module that contains it, its target, and the index among such calls."""

TRACE_ERRORS = (fx.proxy.TraceError, TypeError, RuntimeError, AttributeError, ValueError, IndexError, AssertionError)
"""Exceptions of a forward pass that cannot be traced: control flow on values, or code that needs real tensors."""


class BlockTracer(fx.Tracer):
    """Traces a network down to its blocks.

    Args:
        blocks: Names of the modules that stay whole, besides those without children and those that timm or torch
            excludes from tracing.
    """

    def __init__(self, blocks: Collection[str] = ()) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))  # type: ignore[no-untyped-call]
        self._blocks = frozenset(blocks)
        self._whole = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm, *get_notrace_modules())  # type: ignore[no-untyped-call]

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:  # noqa: D102
        return (
            name in self._blocks
            or isinstance(module, self._whole)
            or next(module.children(), None) is None
            or super().is_leaf_module(module, name)
        )

    def call_module(  # noqa: D102
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401
        # VGG's hidden layers are two rows of the table, after a check of the map's size that cannot be traced.
        if isinstance(m, ConvMlp):
            maps = self.create_proxy("call_function", _at_least, (*args, m.input_kernel_size), {})
            return m.act2(m.fc2(m.drop(m.act1(m.fc1(maps)))))
        return super().call_module(m, forward, args, kwargs)


def _at_least(maps: Tensor, side: int) -> Tensor:
    """Enlarge maps [B, C, H, W] that are smaller than the kernel of `ConvMlp`, as it does itself."""
    height, width = maps.shape[-2:]
    if height >= side and width >= side:
        return maps
    return nn.functional.adaptive_avg_pool2d(maps, (max(side, height), max(side, width)))


def trace_graph(model: nn.Module, blocks: Collection[str]) -> fx.Graph:
    """Trace the forward pass of a network in its current mode (eval or train).

    Args:
        model: The network; its optional arguments are fixed to their defaults.
        blocks: Names of the modules that stay whole.

    Raises:
        TRACE_ERRORS: The network cannot be traced.
    """
    options = list(inspect.signature(model.forward).parameters.values())[1:]
    fixed = {option.name: option.default for option in options if option.default is None or option.default is False}
    graph = BlockTracer(blocks).trace(model, concrete_args=fixed or None)
    defaults = {n: n.args[0] if n.args else None for n in list(graph.nodes)[1:] if n.op == "placeholder"}
    for node in {user for optional in defaults for user in optional.users}:
        node.args = fx.map_arg(node.args, lambda n: defaults.get(n, n))
        node.kwargs = fx.map_arg(node.kwargs, lambda n: defaults.get(n, n))
    for optional in defaults:
        graph.erase_node(optional)
    return graph


def block_names(model: nn.Module) -> set[str]:
    """Return the modules that are blocks: all their parameters are in one of timm's groups, and none is in the head."""
    group_of = _grouping(model)
    if group_of is None:
        return set()
    heads = head_names(model)
    groups: dict[str, set[Hashable]] = defaultdict(set)
    for parameter, _ in model.named_parameters():
        group = group_of(parameter)
        owner = parameter.rpartition(".")[0]
        while owner:
            groups[owner].add(group)
            owner = owner.rpartition(".")[0]
    return {
        name
        for name, found in groups.items()
        if len(found) == 1
        and None not in found
        and not any(head == name or head.startswith(f"{name}.") for head in heads)
        and not _is_wrapper(model.get_submodule(name))
    }


def _is_wrapper(module: nn.Module) -> bool:
    """Return whether a module is a container of one module, or one that is never called itself."""
    return isinstance(module, nn.ModuleList | nn.ModuleDict) or (isinstance(module, nn.Sequential) and len(module) == 1)


def _grouping(model: nn.Module) -> Callable[[str], Hashable] | None:
    """Return timm's function from a parameter name to its group (or None); None if the network defines no groups."""
    matcher = getattr(model, "group_matcher", None)
    groups: Any = matcher(coarse=False) if matcher is not None else None
    if groups is None:
        return None
    if callable(groups):
        return lambda name: _hashable(groups(name))
    patterns = [
        (re.compile(spec[0]), ordinal)
        for ordinal, specs in enumerate(groups.values())
        if specs is not None
        for spec in (specs if isinstance(specs, list | tuple) else [(specs,)])
    ]

    def group_of(name: str) -> Hashable:
        for pattern, ordinal in patterns:
            if match := pattern.match(name):
                return (ordinal, *match.groups())
        return None

    return group_of


def _hashable(group: Any) -> Hashable:  # noqa: ANN401
    return tuple(group) if isinstance(group, list) else group


def node_ids(graph: fx.Graph) -> dict[fx.Node, NodeId]:
    """Return an ID for each node that is the same for the same operation in traces in eval and in train mode."""
    seen: dict[tuple[str, str], int] = defaultdict(int)
    found: dict[fx.Node, NodeId] = {}
    for node in graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        key = (next(reversed(stack), ""), str(node.target))
        found[node] = (*key, seen[key])
        seen[key] += 1
    return found


class ValueRecorder(fx.Interpreter):
    """Runs a graph and records the shape of every tensor and the value of everything else.

    Args:
        model: The network that `graph` was traced from.
        graph: The graph to interpret.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, garbage_collect_values=True, graph=graph)
        self.values: dict[fx.Node, Any] = {}

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:  # noqa: D102
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        # fx passes immutable lists, but some modules (of HRNet) write into theirs
        return tuple(list(arg) if isinstance(arg, list) else arg for arg in args), kwargs

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401, D102
        value = super().run_node(n)
        self.values[n] = value.to("meta") if isinstance(value, Tensor) else value
        return value


def run_on_meta(model: nn.Module, run: Callable[[nn.Module, torch.device], T]) -> T:
    """Call a function that needs only shapes with a copy of the network on the meta device.

    Args:
        model: The network, on any device.
        run: Called with a network and the device of its parameters; if it fails on the meta device, called again with
            the network itself.
    """
    device = next(model.parameters()).device
    tensors = [*model.parameters(), *model.buffers()]
    twin = copy.deepcopy(
        model, {id(tensor): tensor.to("meta") for tensor in tensors} if device.type != "meta" else None
    )
    try:
        return run(twin, torch.device("meta"))
    except (RuntimeError, NotImplementedError):
        return run(model, device)


def node_values(model: nn.Module, graph: fx.Graph, shape: tuple[int, ...]) -> dict[fx.Node, Any]:
    """Return the value of each node for empty images: tensors on the meta device, other values as they are.

    Args:
        model: The network, on any device, in the mode in which it was traced.
        graph: The graph traced from the network.
        shape: Shape [B, C, H, W] of the images.
    """

    def run(network: nn.Module, device: torch.device) -> dict[fx.Node, Any]:
        recorder = ValueRecorder(network, graph)
        recorder.run(torch.zeros(shape, device=device))
        return recorder.values

    with torch.no_grad():
        return run_on_meta(model, run)


def input_node(graph: fx.Graph) -> fx.Node:
    """Return the placeholder of the images."""
    node: fx.Node = next(iter(graph.nodes))
    return node


def image_dependent(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose value depends on the image; others (parameters, constants) are available everywhere."""
    found = {input_node(graph)}
    for node in graph.nodes:
        if not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def crossings(graph: fx.Graph) -> list[set[fx.Node]]:
    """Return, for each node in order, the nodes up to it whose values later nodes use."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    dependent = image_dependent(graph)
    alive: set[fx.Node] = set()
    found = []
    for index, node in enumerate(graph.nodes):
        if node in dependent:
            alive.add(node)
        alive = {live for live in alive if any(order[user] > index for user in live.users)}
        found.append(set(alive))
    return found


def copy_subgraph(
    graph: fx.Graph,
    start: fx.Node,
    ends: list[fx.Node],
    constants: dict[fx.Node, Any],
    *,
    flatten: bool = False,
    unflatten: tuple[int, ...] | None = None,
) -> fx.Graph | None:
    """Copy the nodes from `start` to `ends` into a new graph.

    Args:
        graph: The graph to copy from.
        start: The node whose value is the input.
        ends: The nodes whose mean value is the output.
        constants: Nodes with known values.
        flatten: Whether to flatten the output to [B, D].
        unflatten: Shape, without the batch, to which an input [B, D] is reshaped; None to take it as it is.

    Returns:
        None if `ends` depend on more than the value of `start`.
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
