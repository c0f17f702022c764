"""Choose what runs a run's network: ONNX Runtime (or OpenVINO) from the run's ONNX file on a CPU, otherwise torch.

Importing this module does not import torch. Shapes: B images of H x W pixels with C channels in a batch, k classes, D
features.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from typing import Protocol

from tlcli.engines.onnx_session import EXPORT_ENGINES, ExportedSession, OnnxSession, UnloadableError
from tlcli.engines.openvino_session import OpenVinoSession, bf16_obstacle
from tlcli.engines.threads import map_in_threads
from tlcli.errors import UsageError
from tlcli.images.batch import Pixels
from tlcli.inference.network_outputs import Outputs
from tlcli.processes import cores
from tlcli.progress import Reporter
from tlcli.runs.directory import ONNX_FILE
from tlcli.runs.run import Run

ONNX_BATCH_SIZE = 4
"""Images per batch for ONNX Runtime and OpenVINO, which process them one by one."""
GPU_DRIVERS = ("libcuda.so.1", "libamdhip64.so", "nvcuda.dll")
"""Driver libraries of the GPUs that torch calls CUDA devices."""


class Model(Protocol):
    """A run's network: pixels uint8 [B, H, W, C] to logits, and to the features before the head."""

    batch_size: int
    name: str
    """Device, precision, and engine, for messages."""
    threads: int
    """Calls of `run` that are best made at the same time."""

    def run(self, pixels: Pixels) -> Outputs:
        """Return the outputs of a batch."""

    def map(self, batches: Iterable[Pixels]) -> Iterator[Outputs]:
        """Call `run` on each batch in the background, and yield the results in order."""


class ExportedModel:
    """A run's network in ONNX Runtime or OpenVINO; see `Model`.

    Args:
        session: The network. That of a run of version 0.1 or 0.2 returns logits only.
        batch_size: Images per batch; None means `ONNX_BATCH_SIZE`.
    """

    def __init__(self, session: ExportedSession, batch_size: int | None) -> None:
        self._session = session
        self.name = f"cpu, {session.precision}, {EXPORT_ENGINES[session.engine]}"
        self.batch_size = batch_size or ONNX_BATCH_SIZE
        self.threads = cores()

    def run(self, pixels: Pixels) -> Outputs:
        """Convert pixels uint8 [B, H, W, C], B >= 1, to the outputs.

        Raises:
            MemoryError: Memory ran out.
        """
        logits, *features = self._session.outputs(pixels)
        return Outputs(logits, features[0] if features else None)

    def map(self, batches: Iterable[Pixels]) -> Iterator[Outputs]:
        """Call `run` on each batch in the background, and yield the results in order."""
        return map_in_threads(self.run, batches, self.threads)


def open_model(run: Run, *, device: str, engine: str, batch_size: int | None, report: Reporter) -> Model:
    """Open a run's network in ONNX Runtime if the run has an ONNX file and the CPU is used, otherwise in torch.

    A run that OpenVINO computed in bf16 is opened in the same way where that is possible, otherwise in fp32.

    Args:
        run: The run whose network is opened.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        engine: `auto`, `onnx`, `openvino` or `torch`.
        batch_size: Images per batch; None picks it by engine and device.
        report: Receives a note if torch replaces ONNX Runtime, or fp32 replaces bf16.

    Raises:
        UsageError: `--engine onnx` or `openvino` was given, and the run has no ONNX file that it can load or the device
            is not the CPU.
        ArtifactError: The weights do not fit the architecture.
        MachineError: The device is missing, or OpenVINO is not installed.
    """
    required = engine in EXPORT_ENGINES
    has_onnx = ONNX_FILE in run.info["files"]
    if required and not has_onnx:
        raise UsageError(
            f"--engine {engine}: {run.directory} has no {ONNX_FILE}: it was trained in torch (--engine torch, or "
            "--precision bf16 without --engine openvino), or its network cannot be exported. Use --engine torch."
        )
    on_cpu = device == "cpu" or (device == "auto" and (required or not has_gpu_driver()))
    if required and not on_cpu:
        raise UsageError(f"--engine {engine} runs on a CPU, not on {device}. Use --engine torch.")
    if has_onnx and on_cpu and engine != "torch":
        try:
            return ExportedModel(_open_session(run, engine, report), batch_size)
        except UnloadableError as error:
            if required:
                raise UsageError(f"--engine {engine}: {error}. Use --engine torch.") from error
            report.note(f"Engine    torch: {error}")
    from tlcli.inference.torch_model import TorchModel

    model = TorchModel(run, device, batch_size, report)
    if run.is_openvino_bf16:
        report.note(_describe_replacement(run, model.name))
    return model


def _open_session(run: Run, engine: str, report: Reporter) -> ExportedSession:
    content, reason = run.content(ONNX_FILE), ""
    if run.is_openvino_bf16 and engine != "onnx":
        try:
            if (obstacle := bf16_obstacle()) is None:
                return OpenVinoSession(content, "bf16")
        except UnloadableError as error:
            obstacle = str(error)
        reason = f": {obstacle}"
    session = OpenVinoSession(content) if engine == "openvino" else OnnxSession(content)
    if run.is_openvino_bf16:
        report.note(_describe_replacement(run, f"cpu, fp32, {EXPORT_ENGINES[session.engine]}") + reason)
    return session


def _describe_replacement(run: Run, name: str) -> str:
    agreement = run.info["precision_check"]["agreement"]
    return (
        f"Engine    {name} instead of OpenVINO in bf16, with which {100 * agreement:.1f} % of labels agreed in training"
    )


def has_gpu_driver() -> bool:
    """Return whether a GPU driver is installed, without torch, which takes seconds to import."""
    for name in GPU_DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
