"""A run's network as a `torch.export` program for any number of images, and as a `.pt2` file.

ONNX files are made from the same program. Shapes: B images, k classes.
"""

from __future__ import annotations

import io
import json

import torch
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from tlcli.engines.onnx_export import silence_exporters
from tlcli.exporting.calibrated_network import CalibratedNetwork
from tlcli.exporting.comparison import ExportedNetwork
from tlcli.exporting.library_errors import library_errors
from tlcli.exporting.network_input import NetworkInput
from tlcli.images.batch import Floats, Pixels
from tlcli.interrupts import run_in_thread

METADATA_FILE = "tlcli.json"
"""The file inside a `.pt2` file that holds the metadata."""


def export_program(network: CalibratedNetwork, network_input: NetworkInput) -> ExportedProgram:
    """Export a network with `torch.export`.

    Raises:
        ArtifactError: torch cannot export it, or only for a fixed number of images.
    """
    with (
        library_errors("torch cannot export this network for any number of images", "Try --format timm."),
        silence_exporters(),
    ):
        example, dynamic_shapes = (network_input.example(),), ({0: Dim("batch")},)
        program = run_in_thread(lambda: torch.export.export(network.eval(), example, dynamic_shapes=dynamic_shapes))
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # it contains paths of this machine
    return program


def serialize_program(program: ExportedProgram, metadata: dict[str, object]) -> bytes:
    """Return the content of a `.pt2` file.

    Raises:
        ArtifactError: torch cannot save the program.
    """
    file = io.BytesIO()
    with library_errors("torch cannot save this network", "Try --format timm."), silence_exporters():
        run_in_thread(lambda: torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(metadata)}))
    return file.getvalue()


def load_program(content: bytes, network_input: NetworkInput) -> ExportedNetwork:
    """Load a `.pt2` file, ready to run.

    Raises:
        ArtifactError: torch cannot load it.
    """
    with library_errors("torch cannot load the file that it saved", "Try --format timm."), silence_exporters():
        network = run_in_thread(lambda: torch.export.load(io.BytesIO(content)).module())

    def run(pixels: Pixels) -> tuple[Floats, Floats]:
        with torch.inference_mode():
            logits, probabilities = network(torch.from_numpy(network_input.prepare(pixels)))
        return logits.numpy(), probabilities.numpy()

    return run
