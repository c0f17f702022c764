"""A run's network as an ONNX file for any number of images.

Shapes: B images, k classes.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import ExportedProgram

from tlcli.engines.onnx_export import MAX_WEIGHT_BYTES, silence_exporters
from tlcli.engines.onnx_session import open_session
from tlcli.errors import UsageError
from tlcli.exporting.comparison import Exported, Pixels, Values
from tlcli.exporting.errors import refusing
from tlcli.exporting.torch_program import taken
from tlcli.images.preprocess import Preprocessing
from tlcli.interrupts import run_in_thread

if TYPE_CHECKING:
    from onnx import ModelProto

OUTPUTS = ("logits", "probabilities")


def check_size(network: nn.Module) -> None:
    """Refuse a network that doesn't fit into one file.

    Raises:
        UsageError: its weights take more than 2 GB.
    """
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    if size > MAX_WEIGHT_BYTES:
        raise UsageError(
            f"this network's weights take {size / 1e9:.1f} GB, and an ONNX file holds at most 2. Use --format torch or "
            "timm."
        )


def onnx_model(traced: ExportedProgram, entry: str) -> ModelProto:
    """A traced network as an ONNX model: `entry` [B, ...] to logits and probabilities, both float32 [B, k].

    Raises:
        ArtifactError: torch can't say it in ONNX.
    """
    import onnx

    def exporting() -> bytes:
        program: Any = torch.onnx.export(
            traced, input_names=[entry], output_names=list(OUTPUTS), dynamo=True, verbose=False
        )
        file = io.BytesIO()
        program.save(file)
        return file.getvalue()

    with refusing("torch can't say this network in ONNX", "Try --format torch or timm."), silence_exporters():
        model = onnx.load_from_string(run_in_thread(exporting))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
        del value.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]  # which name the files of this machine
    del model.graph.value_info[:]
    return model


def onnx_file(model: ModelProto, about: dict[str, object]) -> bytes:
    """The content of a file, with its description in the model's metadata: each value as JSON."""
    from onnx import helper

    helper.set_model_props(model, {key: json.dumps(value) for key, value in about.items()})
    content: bytes = model.SerializeToString()
    return content


def run_onnx_file(content: bytes, entry: str, preprocessing: Preprocessing) -> Exported:
    """What an ONNX file says, in ONNX Runtime.

    Raises:
        ArtifactError: ONNX Runtime can't load it.
    """
    with refusing("ONNX Runtime can't load what torch made of this network", "Try --format torch or timm."):
        session = open_session(content, threads=0)

    def run(pixels: Pixels) -> tuple[Values, Values]:
        fed = {entry: taken(pixels, preprocessing, with_preprocessing=entry == "pixels")}
        logits, probabilities = session.run(list(OUTPUTS), fed)
        return logits, probabilities

    return run
