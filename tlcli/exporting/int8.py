"""Static int8 quantization of an ONNX model by ONNX Runtime, which makes it a quarter of the size."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tlcli.engines.onnx_export import silence_exporters
from tlcli.exporting.library_errors import library_errors
from tlcli.exporting.network_input import NetworkInput
from tlcli.images.batch import Floats, Pixels

if TYPE_CHECKING:
    from onnx import ModelProto

QUANTIZED_OPERATORS = ["Conv", "Gemm", "MatMul", "Relu", "Clip"]
"""Nearly all of the arithmetic, and the activations that bound it: ranges are best measured behind those."""


def quantize_int8(model: ModelProto, network_input: NetworkInput, calibration: Pixels) -> ModelProto:
    """Quantize a model: int8 weights (one scale per channel) and uint8 activations.

    The first convolution stays in fp32.

    Args:
        model: The network in fp32, as ONNX.
        network_input: What the model takes: pixels or normalized images.
        calibration: uint8 [M, H, W, C], images for measuring the ranges of activations.

    Raises:
        ArtifactError: ONNX Runtime cannot quantize it.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._inputs = self._iterate()

        def _iterate(self) -> Iterator[dict[str, Pixels | Floats]]:
            for image in calibration:
                yield {network_input.name: network_input.prepare(image[None])}

        def get_next(self) -> dict[str, Pixels | Floats] | None:
            return next(self._inputs, None)

    with (
        library_errors("ONNX Runtime cannot quantize this network", "Omit --int8."),
        silence_exporters(),
        tempfile.TemporaryDirectory(prefix="tlcli-") as folder,
    ):
        out = Path(folder) / "int8.onnx"
        quantize_static(
            copy.deepcopy(model),  # ONNX Runtime moves its weights to files
            str(out),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED_OPERATORS,
            nodes_to_exclude=[node.name for node in model.graph.node if node.op_type == "Conv"][:1],
            per_channel=True,
            reduce_range=True,  # otherwise sums overflow on processors without VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(str(out))
