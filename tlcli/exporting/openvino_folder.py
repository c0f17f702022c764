"""A run's network as a folder with OpenVINO IR, `model.xml` and `model.bin`, and a model card.

Shapes: B images, k classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlcli.engines.openvino_session import openvino_core
from tlcli.exporting.comparison import ExportedNetwork
from tlcli.exporting.library_errors import library_errors
from tlcli.exporting.network_input import NetworkInput
from tlcli.images.batch import Floats, Pixels
from tlcli.storage.folders import AtomicFolder

if TYPE_CHECKING:
    from onnx import ModelProto

CARD_FILE = "README.md"
NETWORK_FILE, WEIGHTS_FILE = "model.xml", "model.bin"
METADATA_KEY = "tlcli"
"""The entry of the network's runtime information that holds the metadata."""
REMEDY = "Try --format onnx."


def openvino_folder(out: Path) -> AtomicFolder:
    """Return the folder at `out`."""
    others = re.compile("|".join(map(re.escape, (WEIGHTS_FILE, CARD_FILE))))
    return AtomicFolder(path=out, option="--out", writer="tlcli export", index=NETWORK_FILE, others=others)


def write_openvino_files(
    folder: Path, model: ModelProto, metadata: dict[str, object], card: str, *, fp16: bool
) -> None:
    """Convert an ONNX model to OpenVINO IR, and write all files of the folder.

    Args:
        folder: An empty folder to write into.
        model: The network as ONNX, in fp32 or int8.
        metadata: From `export_metadata`; each value is stored as JSON.
        card: The text of the model card.
        fp16: Store weights in 16 bits.

    Raises:
        ArtifactError: OpenVINO cannot convert it.
    """
    core = openvino_core()
    import openvino

    with library_errors("OpenVINO cannot convert this network", REMEDY):
        network = core.read_model(model.SerializeToString(), b"")
        for key, value in metadata.items():
            network.set_rt_info(json.dumps(value), [METADATA_KEY, key])
        openvino.save_model(network, str(folder / NETWORK_FILE), compress_to_fp16=fp16)
    (folder / CARD_FILE).write_bytes(card.encode("utf8", "backslashreplace"))


def load_openvino(
    folder: Path, network_input: NetworkInput, outputs: Sequence[str], precision: str
) -> ExportedNetwork | None:
    """Load the folder in OpenVINO on the CPU, ready to run.

    Args:
        folder: The folder that `write_openvino_files` wrote.
        network_input: What the network takes: pixels or normalized images.
        outputs: Names of the outputs.
        precision: `f32` or `bf16`, in which all that is not quantized is computed.

    Returns:
        The network, or None if this processor cannot compute in `precision`.

    Raises:
        ArtifactError: OpenVINO cannot load it.
    """
    with library_errors("OpenVINO cannot load the exported network", REMEDY):
        compiled = openvino_core().compile_model(
            str(folder / NETWORK_FILE), "CPU", {"INFERENCE_PRECISION_HINT": precision}
        )
        used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if used != precision:
        return None

    def run(pixels: Pixels) -> tuple[Floats, ...]:
        found = compiled({network_input.name: network_input.prepare(pixels)})
        return tuple(found[name].copy() for name in outputs)

    return run
