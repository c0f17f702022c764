"""Weights and activations in 8 bits, by ONNX Runtime's static quantization: a quarter of the size."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tlcli.engines.onnx_export import silence_exporters
from tlcli.exporting.comparison import Pixels, Values
from tlcli.exporting.errors import refusing
from tlcli.exporting.torch_program import taken
from tlcli.images.preprocess import Preprocessing

if TYPE_CHECKING:
    from onnx import ModelProto

QUANTISED = ["Conv", "Gemm", "MatMul", "Relu", "Clip"]
"""Where nearly all of the arithmetic is, and the limits behind it, within which a range is measured best."""


def quantized(model: ModelProto, entry: str, calibration: Pixels, preprocessing: Preprocessing) -> ModelProto:
    """A model with int8 weights (a scale for each channel) and uint8 activations; its first convolution stays in fp32.

    Args:
        model: In fp32.
        entry: The name of its input.
        calibration: uint8 [M, H, W, C], by which the activations' ranges are measured.
        preprocessing: How pixels enter the network.

    Raises:
        ArtifactError: ONNX Runtime can't quantize it.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._inputs = self._each()

        def _each(self) -> Iterator[dict[str, Pixels | Values]]:
            for image in calibration:
                yield {entry: taken(image[None], preprocessing, with_preprocessing=entry == "pixels")}

        def get_next(self) -> dict[str, Pixels | Values] | None:
            return next(self._inputs, None)

    failing = refusing("ONNX Runtime can't quantize this network", "Leave --int8 out.")
    with failing, silence_exporters(), tempfile.TemporaryDirectory(prefix="tlcli-") as folder:
        out = Path(folder) / "int8.onnx"
        quantize_static(
            copy.deepcopy(model),  # which it moves into files
            str(out),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            nodes_to_exclude=[node.name for node in model.graph.node if node.op_type == "Conv"][:1],
            per_channel=True,
            reduce_range=True,  # else sums overflow on processors without VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(str(out))
