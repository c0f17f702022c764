"""A run's network as an ONNX file for any number of images.

Shapes: B images, k classes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import ExportedProgram

from tlcli.engines.onnx_export import MAX_WEIGHT_BYTES, silence_exporters
from tlcli.engines.onnx_session import open_session
from tlcli.errors import UsageError
from tlcli.exporting.comparison import ExportedNetwork
from tlcli.exporting.library_errors import library_errors
from tlcli.exporting.network_input import NetworkInput
from tlcli.images.batch import Floats, Pixels
from tlcli.interrupts import run_in_thread

if TYPE_CHECKING:
    from onnx import ModelProto


def check_onnx_size(network: nn.Module) -> None:
    """Check that a network fits into one ONNX file.

    Raises:
        UsageError: Its weights take more than 2 GB.
    """
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    if size > MAX_WEIGHT_BYTES:
        raise UsageError(
            f"the weights of this network take {size / 1e9:.1f} GB, but an ONNX file holds at most 2 GB. Use --format "
            "torch or timm."
        )


def build_onnx_model(program: ExportedProgram, network_input: NetworkInput, outputs: Sequence[str]) -> ModelProto:
    """Convert an exported program to an ONNX model: its input [B, ...] to the outputs of `CalibratedNetwork`.

    Raises:
        ArtifactError: torch cannot convert it.
    """
    import onnx

    def export() -> bytes:
        onnx_program: Any = torch.onnx.export(
            program, input_names=[network_input.name], output_names=list(outputs), dynamo=True, verbose=False
        )
        file = io.BytesIO()
        onnx_program.save(file)
        return file.getvalue()

    with library_errors("torch cannot export this network to ONNX", "Try --format torch or timm."), silence_exporters():
        model = onnx.load_from_string(run_in_thread(export))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
        del value.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]  # they contain paths of this machine
    del model.graph.value_info[:]
    return model


def serialize_onnx(model: ModelProto, metadata: dict[str, object]) -> bytes:
    """Return the content of an ONNX file whose metadata holds each value as JSON."""
    from onnx import helper

    helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    content: bytes = model.SerializeToString()
    return content


def load_onnx(content: bytes, network_input: NetworkInput, outputs: Sequence[str]) -> ExportedNetwork:
    """Load an ONNX file in ONNX Runtime, ready to run.

    Raises:
        ArtifactError: ONNX Runtime cannot load it.
    """
    with library_errors("ONNX Runtime cannot load the exported network", "Try --format torch or timm."):
        session = open_session(content, threads=0)

    def run(pixels: Pixels) -> tuple[Floats, ...]:
        return tuple(session.run(list(outputs), {network_input.name: network_input.prepare(pixels)}))

    return run
