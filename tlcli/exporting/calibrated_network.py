"""The network to export: it returns logits, and the same probabilities as `predict`.

Shapes: B images of H x W pixels with C channels in a batch, k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import tlcli
from tlcli.backbones.backbone import Backbone
from tlcli.backbones.heads import WithHeadInput, head_modules
from tlcli.engines.onnx_export import WithNormalization
from tlcli.engines.torch_engine import normalization
from tlcli.exporting.network_input import NetworkInput
from tlcli.exporting.novelty_output import NoveltyOutput
from tlcli.inference.novelty import Novelty
from tlcli.runs.run import Run

FORMAT = 1
"""Version of the metadata that `export_metadata` returns."""


class CalibratedNetwork(nn.Module):
    """A run's network in fp32, followed by its temperature and, if classes were weighted, its log prior.

    Args:
        backbone: The run's network, with its weights.
        run: The run whose network and calibration are combined.
        takes_pixels: Take raw pixels and normalize them inside the network.
        novelty: Also compute the novelty of images; None does not.
    """

    log_prior: Tensor

    def __init__(self, backbone: Backbone, run: Run, *, takes_pixels: bool, novelty: Novelty | None = None) -> None:
        super().__init__()
        self.network: nn.Module = backbone.model
        self.novelty = None if novelty is None else NoveltyOutput(novelty)
        if novelty is not None:
            self.network = WithHeadInput(backbone.model, head_modules(backbone.model))
        if takes_pixels:
            scale, shift = normalization(run.preprocessing.mean, run.preprocessing.std)
            self.network = WithNormalization(self.network, scale, shift)
        self._temperature = run.temperature
        prior = run.log_prior
        self.register_buffer("log_prior", None if prior is None else torch.from_numpy(prior).float())

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Convert images, in the form that `NetworkInput` describes, to `outputs`.

        Returns:
            Logits and probabilities, float32 [B, k], and the novelty, float32 [B], if it was asked for.
        """
        if self.novelty is None:
            return self._calibrated(self.network(images))
        logits, features = self.network(images)
        return *self._calibrated(logits), self.novelty(features, logits)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return ("logits", "probabilities") if self.novelty is None else ("logits", "probabilities", "novelty")

    def _calibrated(self, logits: Tensor) -> tuple[Tensor, Tensor]:
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
