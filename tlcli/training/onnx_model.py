"""A trained network as one ONNX file, so that prediction starts without torch and runs several times as fast."""

from __future__ import annotations

from torch import Tensor, nn

from tlcli.backbones.heads import WithHeadInput, head_modules
from tlcli.engines.onnx_export import ExportError, append_head, export_onnx
from tlcli.features.extractor import FeatureExtractor
from tlcli.features.rounding import round_as_stored
from tlcli.training.classifier import Classifier


def classifier_as_onnx(classifier: Classifier) -> bytes | None:
    """Return the whole network of a trained classifier.

    Returns:
        An ONNX model, pixels uint8 [1, H, W, C] to logits float32 [1, k] and the features before the head, float32
        [1, D], if these are vectors; None if prediction must run in torch.
    """
    extractor = classifier.extractor
    network = extractor.network
    if network.engine_requested == "torch" or (network.precision == "bf16" and network.engine != "openvino"):
        return None
    try:
        return _with_head(extractor) if classifier.training is None else _with_tail(classifier)
    except ExportError as error:
        network.report.note(f"Engine    predictions will run in torch: {error}")
        return None


def _with_head(extractor: FeatureExtractor) -> bytes:
    """Append the head to the exported prefix, which the cache keeps."""
    prefix = extractor.exported()
    weight, bias = extractor.network.backbone.head()
    assert bias is not None  # `set_head` requires one
    return append_head(prefix, weight.float().contiguous().cpu().numpy(), bias.float().cpu().numpy())


def _with_tail(classifier: Classifier) -> bytes:
    extractor = classifier.extractor
    preprocessing, cut = extractor.network.preprocessing, extractor.cut
    extractor.network.report.note("Export    the network, for ONNX Runtime")
    tail: nn.Module = cut.tail
    if classifier.novelty is not None:
        tail = WithHeadInput(tail, head_modules(extractor.network.backbone.model))
    outputs = ("logits",) if classifier.novelty is None else ("logits", "features")
    return export_onnx(_WholeNetwork(cut.prefix, tail, rounded=cut.layer > 0).eval(), preprocessing, outputs)


class _WholeNetwork(nn.Module):
    """Prefix and tail, with the features between them rounded as a cache rounds them."""

    def __init__(self, prefix: nn.Module, tail: nn.Module, *, rounded: bool) -> None:
        super().__init__()
        self.prefix, self.tail, self.rounded = prefix, tail, rounded

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Normalized images, float32 [B, C, H, W], to what the tail returns, in float32: logits [B, k], ..."""
        features = self.prefix(images)
        output: Tensor | tuple[Tensor, ...] = self.tail(round_as_stored(features) if self.rounded else features)
        return tuple(value.float() for value in output) if isinstance(output, tuple) else output.float()
