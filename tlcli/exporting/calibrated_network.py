"""The network to export: it returns logits, and the same probabilities as `predict`.

Shapes: B images of H x W pixels with C channels in a batch, k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import tlcli
from tlcli.backbones.build import Backbone
from tlcli.engines.onnx_export import WithNormalization
from tlcli.engines.torch_engine import normalization
from tlcli.exporting.network_input import NetworkInput
from tlcli.runs.run import Run

FORMAT = 1
"""Version of the metadata that `export_metadata` returns."""


class CalibratedNetwork(nn.Module):
    """A run's network in fp32, followed by its temperature and, if classes were balanced, its log prior.

    Args:
        backbone: The run's network, with its weights.
        run: The run whose network and calibration are combined.
        takes_pixels: Take raw pixels and normalize them inside the network.
    """

    log_prior: Tensor

    def __init__(self, backbone: Backbone, run: Run, *, takes_pixels: bool) -> None:
        super().__init__()
        self.network: nn.Module = backbone.model
        if takes_pixels:
            scale, shift = normalization(run.preprocessing.mean, run.preprocessing.std)
            self.network = WithNormalization(backbone.model, scale, shift)
        self._temperature = run.temperature
        prior = run.log_prior
        self.register_buffer("log_prior", None if prior is None else torch.from_numpy(prior).float())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Convert images, in the form that `NetworkInput` describes, to logits and probabilities, float32 [B, k]."""
        logits = self.network(images)
        scores = logits / self._temperature
        if self.log_prior is not None:
            scores = scores + self.log_prior
        return logits, scores.softmax(1)


def export_metadata(run: Run, network_input: NetworkInput) -> dict[str, object]:
    """Return what users of an export need to know, as JSON, the same in every format; see docs/export.md."""
    return {
        "format_version": FORMAT,
        "tlcli_version": tlcli.__version__,
        "backbone": run.info["backbone"],
        "classes": list(run.classes),
        "preprocessing": run.preprocessing.to_json(),
        "input": network_input.description,
        "temperature": run.temperature,
        "log_prior": run.info["log_prior"],
        "run": run.info["sha256"],
    }
