"""A run's network as a `torch.export` program, for any number of images: what ONNX is made from, and a `.pt2` file.

Shapes: B images, k classes.
"""

from __future__ import annotations

import io
import json

import torch
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from tlcli.engines.onnx_export import silence_exporters
from tlcli.exporting.calibrated_network import Calibrated
from tlcli.exporting.comparison import Exported, Pixels, Values, normalized
from tlcli.exporting.errors import refusing
from tlcli.images.preprocess import Preprocessing
from tlcli.interrupts import run_in_thread

ABOUT = "tlcli.json"
"""The file, within a `.pt2`, that describes it."""
EXAMPLES = 2
"""Images to trace with: a single one would make torch take one for the only number there is."""


def trace(network: Calibrated, preprocessing: Preprocessing, *, with_preprocessing: bool) -> ExportedProgram:
    """Trace a network.

    Raises:
        ArtifactError: torch can't, or only for a fixed number of images.
    """
    height, width, channels = preprocessing.shape
    example = torch.zeros(EXAMPLES, channels, height, width)
    if with_preprocessing:
        example = torch.zeros(EXAMPLES, height, width, channels, dtype=torch.uint8)
    with (
        refusing("torch can't export this network for any number of images", "Try --format timm."),
        silence_exporters(),
    ):
        batches = ({0: Dim("batch")},)
        traced = run_in_thread(lambda: torch.export.export(network.eval(), (example,), dynamic_shapes=batches))
    for module in traced.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # which names the files of this machine
    return traced


def torch_file(traced: ExportedProgram, about: dict[str, object]) -> bytes:
    """The content of a `.pt2` file."""
    file = io.BytesIO()
    with refusing("torch can't save this network", "Try --format timm."), silence_exporters():
        run_in_thread(lambda: torch.export.save(traced, file, extra_files={ABOUT: json.dumps(about)}))
    return file.getvalue()


def run_torch_file(content: bytes, preprocessing: Preprocessing, *, with_preprocessing: bool) -> Exported:
    """What a `.pt2` file says, once it is loaded."""
    with refusing("torch can't load what it saved of this network", "Try --format timm."), silence_exporters():
        network = run_in_thread(lambda: torch.export.load(io.BytesIO(content)).module())

    def run(pixels: Pixels) -> tuple[Values, Values]:
        images = taken(pixels, preprocessing, with_preprocessing=with_preprocessing)
        with torch.inference_mode():
            logits, probabilities = network(torch.from_numpy(images))
        return logits.numpy(), probabilities.numpy()

    return run


def taken(pixels: Pixels, preprocessing: Preprocessing, *, with_preprocessing: bool) -> Pixels | Values:
    """Pixels uint8 [B, H, W, C] as an exported network takes them."""
    return pixels.copy() if with_preprocessing else normalized(pixels, preprocessing)
