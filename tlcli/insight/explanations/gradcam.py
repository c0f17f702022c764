"""Grad-CAM (Selvaraju et al. 2017): which regions of an image are evidence for a class.

Grad-CAM is the sum of the units of the network's last maps, each weighted by the mean gradient of the class's logit
over all positions; negative values are clipped:

    L = max(sum_u w_u A_u, 0),   w_u = mean over positions of d logit / d A_u

It uses the last maps that the logits depend on at more than one position: the output of the last convolution in
convolutional networks, or the tokens that enter the last block of a transformer that reads only its class token.

Shapes: B images of H x W pixels with C channels; h x w positions of a map.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from tlcli.backbones.backbone import Backbone
from tlcli.backbones.cut_points import trace_backbone
from tlcli.engines.batch_splitter import BatchSplitter
from tlcli.engines.torch_engine import normalization
from tlcli.errors import UsageError
from tlcli.images.batch import Floats, Pixels
from tlcli.images.preprocess import Preprocessing
from tlcli.insight.activation_taps import ActivationTap, UnitLayout, spatial_taps


class LayerProbe(nn.Module):
    """Follows a layer without changing its values, so that they can be read as maps.

    Args:
        layout: How units and positions are arranged in the values.
    """

    def __init__(self, layout: UnitLayout) -> None:
        super().__init__()
        self._layout = layout
        self.maps = nn.Identity()
        """Its output is the layer's maps, float [B, U, h, w]."""

    def forward(self, values: Tensor) -> Tensor:
        """Return the values [B, ...] unchanged."""
        return self._layout.from_maps(self.maps(self._layout.to_maps(values)), values)


class GradCam:
    """Computes the Grad-CAM maps of a network.

    Args:
        backbone: The network. It is moved to the device, and its parameters no longer require gradients.
        preprocessing: How images are prepared for the network.
        device: The device to use.
        warn: Called with a message when batches have to become smaller.

    Raises:
        UsageError: the network cannot be traced, or its logits depend on no maps of more than one position.
    """

    def __init__(
        self,
        backbone: Backbone,
        preprocessing: Preprocessing,
        *,
        device: torch.device,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        backbone.model.eval().requires_grad_(False)
        taps = spatial_taps(backbone)
        backbone.model.to(device)
        self._device, self._shape = device, preprocessing.shape
        self._splitter = BatchSplitter(device, warn)
        scale, shift = normalization(preprocessing.mean, preprocessing.std)
        self._scale, self._shift = scale.to(device), shift.to(device)
        noise = np.random.default_rng(0).integers(0, 256, (1, *self._shape)).astype(np.uint8)
        for tap in taps:
            self.layer = tap.layer.name
            """Name of the layer whose maps are used."""
            self._network, self._maps_module = _with_probe(backbone, tap)
            if self._depends(noise):
                return
        raise UsageError(
            f"--explain: Grad-CAM needs spatial feature maps, and the logits of {backbone.name} depend on none."
        )

    def maps(self, pixels: Pixels, labels: Sequence[int]) -> Floats:
        """Compute the Grad-CAM of one class per image.

        Args:
            pixels: uint8 [B, H, W, C].
            labels: Class index of each image, B of them.

        Returns:
            float32 [B, h, w], non-negative; all zeros for an image without evidence for the class.

        Raises:
            MachineError: there is not enough memory for a single image.
        """
        parts = self._splitter.run(lambda part: self._attribute(pixels[part], labels[part]), len(pixels))
        return np.concatenate(parts)

    def _images(self, pixels: Pixels) -> Tensor:
        images = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
        return (images.float() * self._scale + self._shift).contiguous(memory_format=torch.channels_last)

    def _depends(self, pixels: Pixels) -> bool:
        """Return whether the logits depend on the maps. Patch tokens after the last block, say, may be unused."""
        maps_seen: list[Tensor] = []
        hook = self._maps_module.register_forward_hook(lambda _, __, maps: maps_seen.append(maps.requires_grad_()))
        with hook, torch.enable_grad():
            logits = self._network(self._images(pixels))
            # Weight each class differently: the sum of all logits may be constant.
            weighted = logits @ torch.arange(1.0, logits.shape[1] + 1, device=self._device)
            (gradient,) = torch.autograd.grad(weighted.sum(), maps_seen, allow_unused=True)
        return gradient is not None and bool(gradient.any())

    def _attribute(self, pixels: Pixels, labels: Sequence[int]) -> Floats:
        target = torch.tensor(list(labels), device=self._device)
        cam = _layer_grad_cam(self._network, self._maps_module)
        found = cam.attribute(self._images(pixels), target=target, relu_attributions=True)
        maps: Floats = found[:, 0].detach().float().cpu().numpy()
        return maps


def _with_probe(backbone: Backbone, tap: ActivationTap) -> tuple[nn.Module, nn.Module]:
    """Insert a `LayerProbe` after a layer; return the network, and the module whose output is the maps."""
    traced = trace_backbone(backbone)
    assert traced is not None, "spatial_taps has traced it"
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(traced.graph, copied))
    network = fx.GraphModule(backbone.model, graph)
    probe = LayerProbe(tap.layout)
    network.add_submodule("probe", probe)
    node = copied[tap.node]
    with graph.inserting_after(node):
        inserted = graph.call_module("probe", (node,))
    node.replace_all_uses_with(inserted, delete_user_cb=lambda user: user is not inserted)
    network.graph = graph
    return network, probe.maps


def _layer_grad_cam(network: nn.Module, layer: nn.Module) -> Any:  # noqa: ANN401 - captum is imported late
    # captum imports matplotlib, which warns if it cannot cache its font list; the fonts are not used here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from captum.attr import LayerGradCam

    return LayerGradCam(network, layer)
