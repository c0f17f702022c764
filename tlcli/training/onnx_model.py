"""A trained network as one ONNX file, so that prediction starts without torch and runs several times as fast."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tlcli.engines.onnx_export import ExportError, append_head, export_onnx
from tlcli.features.backbone import LoadedBackbone
from tlcli.features.extractor import FeatureExtractor
from tlcli.features.rounding import round_as_stored


def head_as_onnx(extractor: FeatureExtractor, weight: Tensor, bias: Tensor) -> bytes | None:
    """Return the exported prefix, followed by a head.

    Args:
        extractor: A network cut before its head.
        weight: float32 [k, D].
        bias: float32 [k].

    Returns:
        An ONNX model, pixels uint8 [1, H, W, C] to logits float32 [1, k]; None if prediction must run in torch.
    """
    return _exported(extractor.network, lambda: append_head(extractor.exported(), weight.numpy(), bias.numpy()))


def network_as_onnx(extractor: FeatureExtractor) -> bytes | None:
    """Return the whole network of a trained tail.

    Returns:
        An ONNX model, pixels uint8 [1, H, W, C] to logits float32 [1, k]; None if prediction must run in torch.
    """
    preprocessing, cut, report = extractor.network.preprocessing, extractor.cut, extractor.network.report

    def export_network() -> bytes:
        report.note("Export    the network, for ONNX Runtime")
        whole = _WholeNetwork(cut.prefix, cut.tail, rounded=cut.layer > 0).eval()
        return export_onnx(whole, preprocessing)

    return _exported(extractor.network, export_network)


def _exported(network: LoadedBackbone, make: Callable[[], bytes]) -> bytes | None:
    if network.engine_asked == "torch" or network.precision == "bf16":
        return None
    try:
        return make()
    except ExportError as error:
        network.report.note(f"Engine    predictions will run in torch: {error}")
        return None


class _WholeNetwork(nn.Module):
    """Prefix and tail, with the features between them rounded as a cache rounds them."""

    def __init__(self, prefix: nn.Module, tail: nn.Module, *, rounded: bool) -> None:
        super().__init__()
        self.prefix, self.tail, self.rounded = prefix, tail, rounded

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images, float32 [B, C, H, W], to logits float32 [B, k]."""
        features = self.prefix(images)
        logits: Tensor = self.tail(round_as_stored(features) if self.rounded else features)
        return logits.to(torch.float32)
