"""Convert an ONNX model to fp16, which makes it half the size, and check that its activations fit into 16 bits."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from tlcli.engines.onnx_export import silence_exporters
from tlcli.engines.onnx_session import open_session
from tlcli.errors import ArtifactError
from tlcli.exporting.library_errors import library_errors
from tlcli.exporting.network_input import NetworkInput
from tlcli.images.batch import Pixels

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

RANGE_IMAGES = 8
"""Images whose activations are checked."""
EXPONENT = 0x7C00
"""The exponent's bits in fp16: all are set in infinity and NaN. Testing them is four times as fast as `isfinite`."""
REMEDY = "Omit --fp16."


def convert_to_fp16(model: ModelProto) -> ModelProto:
    """Convert a network to fp16. Its input and outputs keep their types, and logits become probabilities in fp32.

    Args:
        model: The network in fp32, with the outputs `logits` and `probabilities`.

    Raises:
        ArtifactError: ONNX Runtime cannot convert it.
    """
    from onnxruntime.transformers import float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = copy.deepcopy(model)
    graph, outputs = model.graph, list(model.graph.output)
    calibration = _split_calibration(graph)
    with library_errors("ONNX Runtime cannot convert this network to fp16", REMEDY), silence_exporters():
        converted = OnnxModel(float16.convert_float_to_float16(model, keep_io_types=True))
        converted.topological_sort()
    result: ModelProto = converted.model
    result.graph.node.extend(calibration.node)
    result.graph.initializer.extend(calibration.initializer)
    del result.graph.output[:], result.graph.value_info[:]
    result.graph.output.extend(outputs)
    return result


def _split_calibration(graph: GraphProto) -> GraphProto:
    """Remove all nodes after the logits from a graph, and return them, with copies of their constants."""
    from onnx import GraphProto

    calibration, computed = GraphProto(), {"logits"}
    for node in list(graph.node):  # sorted by their order of execution
        if computed & set(node.input):
            computed |= set(node.output)
            calibration.node.append(node)
            graph.node.remove(node)
    needed = {name for node in graph.node for name in node.input}
    for tensor in list(graph.initializer):
        if any(tensor.name in node.input for node in calibration.node):
            calibration.initializer.append(tensor)
            calibration.initializer[-1].name += "_fp32"
            if tensor.name not in needed:
                graph.initializer.remove(tensor)
    renamed = {tensor.name.removesuffix("_fp32"): tensor.name for tensor in calibration.initializer}
    for node in calibration.node:
        _rename_inputs(node, renamed)
    logits = next(output for output in graph.output if output.name == "logits")
    del graph.output[:]
    graph.output.append(logits)
    return calibration


def _rename_inputs(node: NodeProto, renamed: dict[str, str]) -> None:
    node.input[:] = [renamed.get(name, name) for name in node.input]


def check_fp16_range(model: ModelProto, network_input: NetworkInput, pixels: Pixels) -> None:
    """Check that all activations of a network are finite in fp16.

    ONNX Runtime computes most of an fp16 network in fp32 on a CPU, so its outputs do not show what overflows on a GPU.

    Args:
        model: The network in fp16.
        network_input: What the model takes: pixels or normalized images.
        pixels: uint8 [N, H, W, C], real images; the first `RANGE_IMAGES` are used.

    Raises:
        ArtifactError: An activation exceeds the range of fp16.
    """
    from onnx import ValueInfoProto

    model = copy.deepcopy(model)
    names = list(dict.fromkeys(name for node in model.graph.node for name in node.output if name))
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in known)
    with library_errors("ONNX Runtime cannot run this network in fp16", REMEDY):
        session = open_session(model.SerializeToString(), threads=0)
        for image in pixels[:RANGE_IMAGES]:
            values = session.run(names, {network_input.name: network_input.prepare(image[None])})
            for name, value in zip(names, values, strict=True):
                if value.dtype == np.float16 and ((value.view(np.uint16) & EXPONENT) == EXPONENT).any():
                    raise ArtifactError(
                        f"an activation of this network ({name}) exceeds 65,504, the range of fp16, on real images. "
                        f"Nothing was written. {REMEDY}"
                    )
