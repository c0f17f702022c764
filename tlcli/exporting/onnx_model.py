"""The network to export with its options, and as an ONNX model, from which ONNX files and OpenVINO IR are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcli.backbones.backbone import Backbone
from tlcli.exporting import onnx_file, torch_program
from tlcli.exporting.calibrated_network import CalibratedNetwork
from tlcli.exporting.int8 import quantize_int8
from tlcli.exporting.network_input import NetworkInput
from tlcli.images.batch import Pixels
from tlcli.inference.novelty import load_novelty
from tlcli.progress import Reporter
from tlcli.runs.run import Run
from tlcli.settings import ExportSettings

if TYPE_CHECKING:
    from onnx import ModelProto


def calibrated_network(
    run: Run, backbone: Backbone, settings: ExportSettings
) -> tuple[CalibratedNetwork, NetworkInput]:
    """Return the network to export, and its input."""
    pixels = settings.with_preprocessing
    novelty = load_novelty(run) if settings.with_novelty else None
    network = CalibratedNetwork(backbone, run, takes_pixels=pixels, novelty=novelty)
    return network, NetworkInput(preprocessing=run.preprocessing, takes_pixels=pixels)


def onnx_model(
    network: CalibratedNetwork,
    network_input: NetworkInput,
    settings: ExportSettings,
    calibration: Pixels,
    report: Reporter,
) -> ModelProto:
    """Return the network as ONNX, in fp32, or with `--int8` in 8 bits.

    Args:
        network: The network to export.
        network_input: Its input.
        settings: The precision.
        calibration: uint8 [M, H, W, C], images for measuring the ranges of activations.
        report: Receives notes.

    Raises:
        ArtifactError: torch cannot export the network, or ONNX Runtime cannot quantize it.
    """
    report.note("Export    the network, for ONNX")
    program = torch_program.export_program(network, network_input)
    model = onnx_file.build_onnx_model(program, network_input, network.outputs)
    if not settings.int8:
        return model
    report.note(f"Quantize  to 8 bits, calibrated on {len(calibration):,} training images")
    return quantize_int8(model, network_input, calibration)
