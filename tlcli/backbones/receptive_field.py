"""Compute exact receptive fields: which pixels each position of a map depends on, operation by operation.

Position i of an axis depends on the pixels jump * i + low to jump * i + high. A window with extent f, stride s and
padding p before it changes these to jump * s, low - jump * p and high + jump * (f - 1 - p) (Dumoulin & Visin 2016, "A
guide to convolution arithmetic for deep learning"; Araujo, Norris & Sim 2019, "Computing receptive fields of
convolutional neural networks"). Where branches meet, the field is their union. After an operation that mixes all
positions (global pooling, squeeze-and-excitation, attention, including windowed attention, a linear layer after
flattening, and any operation that is not recognized here), the field is the whole image. Flattening itself mixes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import activation, batchnorm, dropout

from tlcli.backbones.convolution_arithmetic import Pair, Window, window_of
from tlcli.backbones.graph import TRACE_ERRORS, run_on_meta, trace_graph

PixelPair = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ReceptiveField:
    """The receptive field of the positions of a tensor, in pixels of the image. Pairs are (height, width)."""

    axes: Pair | None = (2, 3)
    """The axes of the tensor that are height and width; None after flattening, or if unknown."""
    jump: PixelPair = (1, 1)
    """Distance between the fields of neighboring positions."""
    low: PixelPair = (0, 0)
    """First pixel of the field of position 0; negative in the padding."""
    high: PixelPair = (0, 0)
    """Last pixel of the field of position 0."""
    whole: bool = False
    """Whether each position depends on the whole image."""

    def through(self, window: Window) -> ReceptiveField:
        """Return the field after a sliding window."""
        (j, k), (f, g), (p, q) = self.jump, (window.extent(0), window.extent(1)), window.before
        return replace(
            self,
            jump=(j * window.stride[0], k * window.stride[1]),
            low=(self.low[0] - j * p, self.low[1] - k * q),
            high=(self.high[0] + j * (f - 1 - p), self.high[1] + k * (g - 1 - q)),
        )

    def side(self, image: Pair) -> int:
        """Return the longer side of the field in pixels, at most the side of `image` (height, width)."""
        if self.whole:
            return max(image)
        return max(min(int(self.high[a] - self.low[a]) + 1, image[a]) for a in (0, 1))


def union(fields: Iterable[ReceptiveField]) -> ReceptiveField:
    """Return the field of positions that are computed from the same position of several tensors."""
    fields = list(fields)
    located = [field for field in fields if field.axes is not None] or fields
    first = located[0]
    if any((field.axes, field.jump) != (first.axes, first.jump) for field in located):
        return replace(first, axes=None, whole=True)
    return replace(
        first,
        low=(min(field.low[0] for field in located), min(field.low[1] for field in located)),
        high=(max(field.high[0] for field in located), max(field.high[1] for field in located)),
        whole=any(field.whole for field in fields),
    )


@dataclass(frozen=True, kw_only=True)
class WindowStep:
    """The sliding window of one module, and the size of its input."""

    module: nn.Module
    window: Window
    size: Pair
    """Height and width of the input maps."""


POOLINGS: dict[str, type[nn.AvgPool2d] | type[nn.MaxPool2d]] = {
    "avg_pool2d": nn.AvgPool2d,
    "max_pool2d": nn.MaxPool2d,
}
# Operations on each position by itself. Modules of torch are listed by class, those of timm by the module that defines
# them.
POINTWISE_MODULES = (batchnorm._BatchNorm, dropout._DropoutNd, nn.Identity)
POINTWISE_SOURCES = (activation.__name__, "timm.layers.activations", "timm.layers.activations_me", "timm.layers.drop")
RESHAPES = ("flatten", "reshape", "view", "transpose")
POINTWISE_NAMES = (
    "add iadd sub mul imul truediv neg relu relu_ relu6 sigmoid tanh gelu silu hardswish hardsigmoid clamp clamp_ "
    "mul_ add_ cat concat contiguous chunk split unbind getitem dropout type_as to float _at_least"
).split()


class ReceptiveFieldTracker(fx.Interpreter):
    """Runs a graph and tracks the receptive fields, also inside modules with submodules.

    Args:
        module: The module to run.
        graph: The graph of `module`.
        fields: Fields of the graph's inputs; None for an input that does not depend on the image.
    """

    def __init__(self, module: nn.Module, graph: fx.Graph, fields: list[ReceptiveField | None]) -> None:
        super().__init__(module, garbage_collect_values=False, graph=graph)
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        self._input_fields = dict(zip(inputs, fields, strict=True))
        self.fields: dict[fx.Node, ReceptiveField | None] = {}
        self.steps: dict[fx.Node, list[WindowStep]] = {}

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:  # noqa: D102
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        # fx passes immutable lists, but some modules (of HRNet) write into theirs
        return tuple(list(arg) if isinstance(arg, list) else arg for arg in args), kwargs

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401, D102
        if n.op == "call_module" and (inner := self._run_submodules(n)) is not None:
            return inner
        value = super().run_node(n)
        self.fields[n] = self._input_fields[n] if n in self._input_fields else self._field(n, value)
        return value

    def _run_submodules(self, node: fx.Node) -> Any:  # noqa: ANN401
        """Run a module with submodules by its own graph; return None if it has none or cannot be traced."""
        module = self.module.get_submodule(str(node.target))
        if next(module.children(), None) is None or isinstance(module, POINTWISE_MODULES):
            return None
        try:
            graph = trace_graph(module, ())
        except TRACE_ERRORS:
            return None
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        if kwargs or len(args) != sum(n.op == "placeholder" for n in graph.nodes):
            return None
        sources: list[list[fx.Node]] = [[] for _ in args]
        for found, arg in zip(sources, node.args, strict=True):
            fx.map_arg(arg, found.append)  # a node or a list of nodes
        tracker = ReceptiveFieldTracker(
            module, graph, [_known_union([self.fields[n] for n in found]) for found in sources]
        )
        value = tracker.run(*args)
        output = next(n for n in reversed(graph.nodes) if n.op == "output")
        self.fields[node] = _known_union([tracker.fields.get(n) for n in output.all_input_nodes])
        self.steps[node] = [step for steps in tracker.steps.values() for step in steps]
        return value

    def _field(self, node: fx.Node, value: Any) -> ReceptiveField | None:  # noqa: ANN401
        sources = [source for source in node.all_input_nodes if self.fields.get(source) is not None]
        if not sources or node.op == "output":
            return None
        known = [field for source in sources if (field := self.fields[source]) is not None]
        if node.op == "call_module":
            module = self.module.get_submodule(str(node.target))
            return self._module_field(node, module, known, self.env[sources[0]], value)
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if name in POOLINGS:
            args, kwargs = self.fetch_args_kwargs_from_env(node)
            return self._module_field(node, POOLINGS[name](*args[1:], **kwargs), known, args[0], value)
        if name in RESHAPES:
            return replace(known[0], axes=None)
        if name in MOVING_OPERATIONS:
            args, _ = self.fetch_args_kwargs_from_env(node)
            return MOVING_OPERATIONS[name](known[0], args, self.env[sources[0]])
        before = [self.env[source] for source in sources]
        pointwise = name in POINTWISE_NAMES and _same_positions(before, value, known)
        return union(known) if pointwise else _mixed(known, value)

    def _module_field(
        self,
        node: fx.Node,
        module: nn.Module,
        known: list[ReceptiveField],
        maps: Any,  # noqa: ANN401
        value: Any,  # noqa: ANN401
    ) -> ReceptiveField:
        field = union(known)
        if field.axes == (2, 3) and isinstance(maps, Tensor) and maps.ndim == 4:
            size = (maps.shape[2], maps.shape[3])
            if window := window_of(module, size):
                self.steps[node] = [WindowStep(module=module, window=window, size=size)]
                return field.through(window)
        if isinstance(module, nn.Flatten):
            return replace(field, axes=None)
        return field if _is_pointwise(module, field, maps, value) else _mixed(known, value)


def _known_union(fields: list[ReceptiveField | None]) -> ReceptiveField | None:
    known = [field for field in fields if field is not None]
    return union(known) if known else None


def _is_pointwise(module: nn.Module, field: ReceptiveField, maps: Any, value: Any) -> bool:  # noqa: ANN401
    """Return whether the module computes each position from the same position only."""
    if not isinstance(maps, Tensor) or not isinstance(value, Tensor):
        return False
    kind, last = type(module), maps.ndim - 1
    if isinstance(module, POINTWISE_MODULES) or kind.__module__ in POINTWISE_SOURCES:
        return kind is not nn.MultiheadAttention
    if kind.__name__ in ("LayerNorm2d", "LayerScale2d", "RmsNorm2d", "SimpleNorm2d"):
        return field.axes == (2, 3)
    if isinstance(module, nn.LayerNorm | nn.Linear) or kind.__name__ in ("LayerScale", "RmsNorm"):
        return field.axes is not None and last not in field.axes
    # adaptive pooling that keeps the size of the maps
    return "Adaptive" in kind.__name__ and value.shape == maps.shape


def _same_positions(before: list[Any], value: Any, fields: list[ReceptiveField]) -> bool:  # noqa: ANN401
    """Return whether all tensors with located positions have as many of them as the result."""
    results = value if isinstance(value, tuple | list) else [value]
    for result in results:
        for source, field in zip(before, fields, strict=True):
            tensors = source if isinstance(source, tuple | list) else [source]
            for tensor in tensors:
                if field.axes is None or not isinstance(tensor, Tensor) or not isinstance(result, Tensor):
                    continue
                if result.ndim != tensor.ndim or any(result.shape[a] != tensor.shape[a] for a in field.axes):
                    return False
    return True


def _mixed(known: list[ReceptiveField], value: Any) -> ReceptiveField:  # noqa: ANN401
    """Return the field of positions that depend on the whole image; the axes are kept if the result is still maps."""
    field = union(known)
    if field.axes == (2, 3) and isinstance(value, Tensor) and value.ndim == 4 and min(value.shape[2:]) > 1:
        return replace(field, whole=True)
    return replace(field, axes=None, whole=True)


def _permuted(field: ReceptiveField, args: tuple[Any, ...], maps: Tensor) -> ReceptiveField:
    order = args[1] if isinstance(args[1], tuple | list) else args[1:]
    dims = [int(axis) % maps.ndim for axis in order]
    if field.axes is None:
        return field
    return replace(field, axes=(dims.index(field.axes[0]), dims.index(field.axes[1])))


def _padded(field: ReceptiveField, args: tuple[Any, ...], maps: Tensor) -> ReceptiveField:
    amounts = [int(side) for side in args[1]]
    if field.axes != (2, 3) or maps.ndim != 4:
        return replace(field, whole=True)
    left, top = amounts[0], amounts[2] if len(amounts) > 2 else 0
    down, right = top * field.jump[0], left * field.jump[1]
    return replace(
        field,
        low=(field.low[0] - down, field.low[1] - right),
        high=(field.high[0] - down, field.high[1] - right),
    )


MOVING_OPERATIONS: dict[str, Callable[[ReceptiveField, tuple[Any, ...], Tensor], ReceptiveField]] = {
    "permute": _permuted,
    "pad": _padded,
}


def track_receptive_fields(model: nn.Module, graph: fx.Graph, shape: tuple[int, ...]) -> ReceptiveFieldTracker:
    """Track the receptive fields in a network for an empty image.

    Args:
        model: The network, on any device.
        graph: The graph traced from the network.
        shape: Shape [1, C, H, W] of the image.
    """

    def run(network: nn.Module, device: torch.device) -> ReceptiveFieldTracker:
        tracker = ReceptiveFieldTracker(network, graph, [ReceptiveField()])
        tracker.run(torch.zeros(shape, device=device))
        return tracker

    with torch.no_grad():
        return run_on_meta(model, run)
