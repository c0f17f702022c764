"""Read the activations of several layers in one forward pass, before and after fine-tuning at once.

Shapes: B images, U units.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from tlcli.backbones.cut_points import TracedNetwork
from tlcli.insight.activation_taps import AFTER, BEFORE, ActivationTap


def tapped_network(
    model: nn.Module,
    traced: TracedNetwork,
    taps: Sequence[ActivationTap],
    *,
    initial: nn.Module | None = None,
    frozen: int | None = None,
) -> fx.GraphModule:
    """Build a network from images float [B, C, H, W] to a tuple with the output of each tapped layer.

    The upper limit of a final ReLU6 is removed from tapped values: otherwise, all images beyond it would tie, with a
    gradient of 0. Later layers still get the limited values.

    Args:
        model: The network to tap.
        traced: The traced network.
        taps: The layers to read.
        initial: The network before fine-tuning, for taps of that stage.
        frozen: Leading layers that both networks share; they are computed once.
    """
    networks = nn.ModuleDict({AFTER: model, BEFORE: initial or model})
    common = {node for row in traced.layers[: frozen or 0] for node in row.nodes}
    graph, shared = fx.Graph(), dict[fx.Node, fx.Node]()
    outputs: dict[int, fx.Node] = {}
    for stage in (AFTER, BEFORE):
        tapped = {number: tap.node for number, tap in enumerate(taps) if tap.before == (stage == BEFORE)}
        copied = _copy(graph, traced, set(tapped.values()), stage, shared)
        shared |= {node: twin for node, twin in copied.items() if node in common or node.op == "placeholder"}
        for number, node in tapped.items():
            outputs[number] = copied[node]
            module = networks[stage].get_submodule(str(node.target)) if node.op == "call_module" else None
            if module is not None and (unlimited := _without_relu6_limit(module)) is not None:
                networks[f"unlimited_{number}"] = unlimited
                outputs[number] = graph.call_module(f"unlimited_{number}", copied[node].args)
    graph.output(tuple(outputs[number] for number in range(len(taps))))
    return fx.GraphModule(networks, graph)


def _copy(
    graph: fx.Graph, traced: TracedNetwork, wanted: set[fx.Node], stage: str, shared: Mapping[fx.Node, fx.Node]
) -> dict[fx.Node, fx.Node]:
    """Copy the nodes of a traced network up to the last wanted one, for a stage; reuse the shared nodes."""
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


def _without_relu6_limit(module: nn.Module) -> nn.Module | None:
    """Return the module, sharing its parameters, with its final ReLU6 replaced by ReLU; None if it has none."""
    if isinstance(module, nn.ReLU6):
        return nn.ReLU()
    if type(module).__module__ != "timm.layers.norm_act" or not isinstance(getattr(module, "act", None), nn.ReLU6):
        return None
    twin = copy.copy(module)
    twin.__dict__["_modules"] = {**twin.__dict__["_modules"], "act": nn.ReLU()}
    return twin


class MaxActivations(nn.Module):
    """Compute the activation of every unit of several layers: its maximum over all positions.

    Args:
        network: A network made by `tapped_network`, in eval mode.
        taps: The taps it was made with.
    """

    def __init__(self, network: nn.Module, taps: Sequence[ActivationTap]) -> None:
        super().__init__()
        self.network = network
        self._layouts = [tap.layout for tap in taps]

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images, float [B, C, H, W], to activations, float [B, U], layer after layer."""
        values = self.network(images)
        return torch.cat(
            [layout.to_maps(value).amax((2, 3)).float() for layout, value in zip(self._layouts, values, strict=True)],
            1,
        )
