"""Grad-CAM (Selvaraju et al. 2017): which places of an image speak for a class.

The units of the network's last maps, each weighed by the mean over all places of the gradient of the class's logit, are
added up, and what is negative is cut off:

    L = max(sum_u w_u A_u, 0),   w_u = mean over places of d logit / d A_u

The maps are the last that the class depends on at more than one place. For convolutional networks these are the last
convolution's; for a transformer that reads its class token alone, the tokens that enter its last block.

B images of H x W pixels with C channels; h x w places of a map.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from tlcli.backbones.build import Backbone
from tlcli.backbones.cut_points import trace_backbone
from tlcli.engines.batch_splitter import BatchSplitter
from tlcli.engines.torch_engine import normalization
from tlcli.errors import UsageError
from tlcli.images.preprocess import Preprocessing
from tlcli.insight.units import Layout, Tap, mapped_taps

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class LayerProbe(nn.Module):
    """Stands behind a layer and changes nothing, so that the layer's values can be watched as maps.

    Args:
        layout: How units and places lie in the values.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self._layout = layout
        self.maps = nn.Identity()
        """Gives float [B, U, h, w]."""

    def forward(self, values: Tensor) -> Tensor:
        """The values as they are, [B, ...]."""
        return self._layout.back(self.maps(self._layout.maps(values)), values)


class GradCam:
    """Makes maps of a network.

    Args:
        backbone: Its parameters need no gradient from now on.
        preprocessing: How images enter it.
        device: Where it is moved to.
        warn: Told where batches had to become smaller.

    Raises:
        UsageError: the network can't be traced, or depends nowhere on more than one place.
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
        taps = mapped_taps(backbone)
        backbone.model.to(device)
        self._device, self._shape = device, preprocessing.shape
        self._splitter = BatchSplitter(device, warn)
        scale, shift = normalization(preprocessing.mean, preprocessing.std)
        self._scale, self._shift = scale.to(device), shift.to(device)
        noise = np.random.default_rng(0).integers(0, 256, (1, *self._shape)).astype(np.uint8)
        for tap in taps:
            self.layer = tap.layer.name
            """Of whose maps."""
            self._network, self._place = _with_place(backbone, tap)
            if self._depends(noise):
                return
        raise UsageError(f"--explain: no class of {backbone.name} depends on maps, so there is nothing to show.")

    def maps(self, pixels: Pixels, labels: Sequence[int]) -> Floats:
        """The Grad-CAM of a class in each image.

        Args:
            pixels: uint8 [B, H, W, C].
            labels: Indices of the classes, [B].

        Returns:
            float32 [B, h, w], none below 0; an image in which no place speaks for the class has zeros.

        Raises:
            MachineError: no memory for a single image.
        """
        parts = self._splitter.run(lambda part: self._attribute(pixels[part], labels[part]), len(pixels))
        return np.concatenate(parts)

    def _images(self, pixels: Pixels) -> Tensor:
        images = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
        return (images.float() * self._scale + self._shift).contiguous(memory_format=torch.channels_last)

    def _depends(self, pixels: Pixels) -> bool:
        """Whether the logits depend on the maps: on the patches' tokens behind a last block, say, they may not."""
        watched: list[Tensor] = []
        hook = self._place.register_forward_hook(lambda _, __, maps: watched.append(maps.requires_grad_()))
        with hook, torch.enable_grad():
            logits = self._network(self._images(pixels))
            # Each class by another weight: all together they may not depend on anything.
            weighed = logits @ torch.arange(1.0, logits.shape[1] + 1, device=self._device)
            (gradient,) = torch.autograd.grad(weighed.sum(), watched, allow_unused=True)
        return gradient is not None and bool(gradient.any())

    def _attribute(self, pixels: Pixels, labels: Sequence[int]) -> Floats:
        target = torch.tensor(list(labels), device=self._device)
        cam = _layer_grad_cam(self._network, self._place)
        found = cam.attribute(self._images(pixels), target=target, relu_attributions=True)
        maps: Floats = found[:, 0].detach().float().cpu().numpy()
        return maps


def _with_place(backbone: Backbone, tap: Tap) -> tuple[nn.Module, nn.Module]:
    """The network with a `LayerProbe` behind a layer: images to logits, and the module that gives the maps."""
    traced = trace_backbone(backbone)
    assert traced is not None, "mapped_taps has traced it"
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(traced.graph, copied))
    network = fx.GraphModule(backbone.model, graph)
    place = LayerProbe(tap.layout)
    network.add_submodule("place", place)
    node = copied[tap.node]
    with graph.inserting_after(node):
        inserted = graph.call_module("place", (node,))
    node.replace_all_uses_with(inserted, delete_user_cb=lambda user: user is not inserted)
    network.graph = graph
    return network, place.maps


def _layer_grad_cam(network: nn.Module, layer: nn.Module) -> Any:  # noqa: ANN401 - captum is imported late
    # It imports matplotlib, which warns where it can't keep a list of fonts that nobody needs here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from captum.attr import LayerGradCam

    return LayerGradCam(network, layer)
