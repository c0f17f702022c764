"""Settings of `export`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlcli.errors import UsageError
from tlcli.processes import cores
from tlcli.settings.checks import at_least, one_of
from tlcli.settings.columns import COLUMN_OPTIONS, TableColumns
from tlcli.settings.common_options import OVERWRITE_OPTION, RUN_ARGUMENT, WORKERS_OPTION
from tlcli.settings.filters import FILTER_OPTIONS, PathPatterns
from tlcli.settings.options import NETWORK, OUTPUT, Option
from tlcli.storage.urls import Location, parse_location

EXPORT_SUFFIXES = {"onnx": ".onnx", "openvino": "-openvino", "torch": ".pt2", "timm": "-timm"}
"""Ending of the output's name, by format; with a dot for files, with a hyphen for folders."""
ONNX_FORMATS = {"onnx", "openvino"}
"""Formats that are made from an ONNX model."""

COMPARISON_PANEL = "Comparison"


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Settings of `export`."""

    run: Location = field(metadata=RUN_ARGUMENT)
    form: str = field(
        metadata=Option(
            help="An ONNX file, a folder with OpenVINO IR, a .pt2 file of torch.export, or a folder for timm and model "
            "hubs.",
            metavar="onnx|openvino|torch|timm",
            flag="--format",
        )
    )
    out: Location | None = field(
        default=None,
        metadata=Option(
            help="File or folder to write.",
            metavar="PATH",
            panel=OUTPUT,
            unset="RUN.onnx, RUN-openvino, RUN.pt2 or RUN-timm, in the working directory",
            parse=parse_location,
        ),
    )
    with_preprocessing: bool = field(
        default=False,
        metadata=Option(
            help="Accept pixels, uint8 [B, H, W, 3] of the network's input size, and normalize them in the network.",
            panel=NETWORK,
        ),
    )
    with_novelty: bool = field(
        default=False,
        metadata=Option(
            help="Add an output novelty to ONNX or OpenVINO: how unlike the training images an image is, as in "
            "predict.",
            panel=NETWORK,
        ),
    )
    fp16: bool = field(
        default=False,
        metadata=Option(help="Convert ONNX or OpenVINO to 16-bit weights: half the size, for GPUs.", panel=NETWORK),
    )
    int8: bool = field(
        default=False,
        metadata=Option(
            help="Quantize ONNX or OpenVINO to 8 bits, calibrated on the run's training images: a quarter of the size, "
            "less accurate.",
            panel=NETWORK,
        ),
    )
    data: Location | None = field(
        default=None,
        metadata=Option(
            help="Labeled images on which to compare the export with the run.",
            metavar="DATA",
            panel=COMPARISON_PANEL,
            unset="those of the run",
            parse=parse_location,
        ),
    )
    filters: PathPatterns = field(default_factory=PathPatterns, metadata=FILTER_OPTIONS)
    columns: TableColumns = field(default_factory=TableColumns, metadata=COLUMN_OPTIONS)
    pictures: int | None = field(
        default=None,
        metadata=Option(
            help="Number of images to compare on; held-out images are used first.",
            metavar="N",
            panel=COMPARISON_PANEL,
            unset="64; 400 with --int8",
        ),
    )
    workers: int | None = field(default=None, metadata=WORKERS_OPTION)
    overwrite: bool = field(default=False, metadata=OVERWRITE_OPTION)

    def __post_init__(self) -> None:
        one_of("--format", self.form, tuple(EXPORT_SUFFIXES))
        at_least("--pictures", self.pictures, 1)
        at_least("--workers", self.workers, 1)
        if self.with_preprocessing and self.form == "timm":
            raise UsageError("--with-preprocessing has no effect with --format timm: timm has its own transforms.")
        for option, given in (("--fp16", self.fp16), ("--int8", self.int8), ("--with-novelty", self.with_novelty)):
            if given and self.form not in ONNX_FORMATS:
                raise UsageError(
                    f"{option} requires --format onnx or openvino, not {self.form}. Remove it, or use one of these."
                )
        if self.fp16 and self.int8:
            raise UsageError("--fp16 and --int8 cannot be combined: choose one precision.")
        if self.with_novelty and self.precision() != "fp32":
            raise UsageError(
                f"--with-novelty and --{self.precision()} cannot be combined: fewer bits change the features that "
                "novelty compares."
            )
        suffix = EXPORT_SUFFIXES[self.form]
        if self.out is not None and suffix.startswith(".") and self.out.suffix.lower() != suffix:
            raise UsageError(f"--out is {self.out}; expected a name ending in {suffix}.")

    def precision(self) -> str:
        """Return the precision of the exported network: `fp32`, `fp16`, or `int8`."""
        return "fp16" if self.fp16 else "int8" if self.int8 else "fp32"

    def suffix(self) -> str:
        """Return the ending of the output's name."""
        precision = self.precision()
        return ("" if precision == "fp32" else f"-{precision}") + EXPORT_SUFFIXES[self.form]

    def image_count(self) -> int:
        """Return the number of images to compare on."""
        return self.pictures or (400 if self.int8 else 64)

    def worker_count(self) -> int:
        """Return how many decoder processes to start: `workers`, or one per available core."""
        return cores() if self.workers is None else self.workers
