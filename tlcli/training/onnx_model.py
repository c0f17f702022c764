"""A trained network as one ONNX file, so that predicting starts without torch and runs several times as fast."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tlcli.engines.onnx_export import ExportError, append_head, export_onnx
from tlcli.features.frozen import Frozen
from tlcli.features.rounding import round_as_stored
from tlcli.training.head.softmax_regression import SoftmaxHead


def portable_model(frozen: Frozen, head: SoftmaxHead | None) -> bytes | None:
    """The network, pixels uint8 [1, H, W, C] to logits float32 [1, k]; None where torch is to run it, or must.

    Args:
        frozen: The trained network, cut where it was trained.
        head: Where all before it was frozen: then it is put behind what runs the frozen part already.
    """
    network = frozen.network
    if network.engine_asked == "torch" or network.precision == "bf16":
        return None
    try:
        if head is not None:
            return append_head(frozen.exported(), head.weight.numpy(), head.bias.numpy())
        network.report.note("Export    the network, for ONNX Runtime")
        whole = _Whole(frozen.cut.prefix, frozen.cut.tail, rounded=frozen.cut.layer > 0).eval()
        return export_onnx(whole, network.preprocessing)
    except ExportError as error:
        network.report.note(f"Engine    predictions will run in torch: {error}")
        return None


class _Whole(nn.Module):
    """Prefix and tail, with what is between them rounded as a cache rounds it."""

    def __init__(self, prefix: nn.Module, tail: nn.Module, *, rounded: bool) -> None:
        super().__init__()
        self.prefix, self.tail, self.rounded = prefix, tail, rounded

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images, float32 [B, C, H, W], to logits float32 [B, k]."""
        features = self.prefix(images)
        logits: Tensor = self.tail(round_as_stored(features) if self.rounded else features)
        return logits.to(torch.float32)
