"""Settings of the hardware and the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlcli.errors import UsageError
from tlcli.processes import cores
from tlcli.settings.checks import at_least, one_of
from tlcli.settings.common_options import WORKERS_OPTION
from tlcli.settings.options import HARDWARE, Option

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
ENGINES = ("auto", "torch", "onnx", "openvino")


@dataclass(frozen=True, kw_only=True)
class ComputeSettings:
    """Where and how the network runs."""

    device: str = field(
        default="auto",
        metadata=Option(
            help="Device to compute on; auto uses CUDA if available.",
            metavar="auto|cpu|cuda|cuda:1|mps",
            panel=HARDWARE,
        ),
    )
    precision: str = field(
        default="auto",
        metadata=Option(
            help="auto computes features in fp32 on a CPU and in fp16 on CUDA, and trains layers in bf16 on hardware "
            "that is fast at it. bf16 with --engine openvino needs a processor with instructions for it, and finetune "
            "compares the predictions with fp32.",
            metavar="auto|fp32|bf16|fp16",
            panel=HARDWARE,
        ),
    )
    engine: str = field(
        default="auto",
        metadata=Option(
            help="Engine for the frozen layers: PyTorch, or on a CPU ONNX Runtime or OpenVINO (pip install "
            "'tlcli[openvino]'); auto uses PyTorch or ONNX Runtime, whichever is faster.",
            metavar="auto|torch|onnx|openvino",
            panel=HARDWARE,
        ),
    )
    batch_size: int | None = field(
        default=None,
        metadata=Option(
            help="Images per batch.",
            metavar="B",
            panel=HARDWARE,
            unset="for features 4 on a CPU, 256 on a GPU; 32 to train layers",
        ),
    )
    workers: int | None = field(default=None, metadata=WORKERS_OPTION)

    def __post_init__(self) -> None:
        one_of("--precision", self.precision, PRECISIONS)
        one_of("--engine", self.engine, ENGINES)
        at_least("--batch-size", self.batch_size, 1)
        at_least("--workers", self.workers, 1)
        check_device(self.device)

    def worker_count(self) -> int:
        """Return how many decoder processes to start: `workers`, or one per available core."""
        return cores() if self.workers is None else self.workers


def check_device(device: str) -> None:
    """Raise UsageError unless this is a device."""
    kind, _, number = device.partition(":")
    if kind not in {"auto", "cpu", "cuda", "mps"} or (number and not (kind == "cuda" and number.isdigit())):
        raise UsageError(f"--device is {device!r}; expected auto, cpu, cuda, cuda:1 or mps.")
