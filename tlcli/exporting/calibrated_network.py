"""The network that leaves the house: logits, and beside them the probabilities that `predict` gives.

Shapes: B images of H x W pixels with C channels in a batch, k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import tlcli
from tlcli.backbones.build import Backbone
from tlcli.engines.onnx_export import WithNormalization
from tlcli.engines.torch_engine import normalization
from tlcli.runs.run import Run

FORMAT = 1
"""Of what `describe` gives."""


class Calibrated(nn.Module):
    """A run's network in fp32, with its temperature and, where classes were balanced, its prior.

    Args:
        backbone: The run's network, with its weights.
        run: The run.
        with_preprocessing: Take pixels, and normalize them.
    """

    log_prior: Tensor

    def __init__(self, backbone: Backbone, run: Run, *, with_preprocessing: bool) -> None:
        super().__init__()
        self.network: nn.Module = backbone.model
        if with_preprocessing:
            scale, shift = normalization(run.preprocessing.mean, run.preprocessing.std)
            self.network = WithNormalization(backbone.model, scale, shift)
        self._temperature = run.temperature
        prior = run.log_prior
        self.register_buffer("log_prior", None if prior is None else torch.from_numpy(prior).float())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images float32 [B, C, H, W], normalized, or pixels uint8 [B, H, W, C], to logits and probabilities [B, k]."""
        logits = self.network(images)
        scores = logits / self._temperature
        if self.log_prior is not None:
            scores = scores + self.log_prior
        return logits, scores.softmax(1)


def input_name(*, with_preprocessing: bool) -> str:
    """What an ONNX model calls its input."""
    return "pixels" if with_preprocessing else "images"


def describe(run: Run, *, with_preprocessing: bool) -> dict[str, object]:
    """What whoever uses an export must know, as JSON: the same in every format, and explained in README.md."""
    height, width, channels = run.preprocessing.shape
    network_sees = f"float32 [B, {channels}, {height}, {width}], (pixels / 255 - mean) / std"
    return {
        "format_version": FORMAT,
        "tlcli_version": tlcli.__version__,
        "backbone": run.info["backbone"],
        "classes": list(run.classes),
        "preprocessing": run.preprocessing.to_json(),
        "input": f"uint8 [B, {height}, {width}, {channels}], pixels" if with_preprocessing else network_sees,
        "temperature": run.temperature,
        "log_prior": run.info["log_prior"],
        "run": run.info["sha256"],
    }
