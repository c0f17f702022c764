"""What `export` can be told."""

from __future__ import annotations

from dataclasses import dataclass

from tlcli.errors import UsageError
from tlcli.processes import cores
from tlcli.settings.shared import at_least, one_of
from tlcli.storage.urls import Location

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "timm": "-timm"}
"""The formats, and how what it writes is called after the run."""


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Everything `export` can be told."""

    run: Location
    """The run's directory."""
    form: str
    """`onnx`, `torch` (a `.pt2` file of `torch.export`) or `timm` (a folder)."""
    out: Location | None = None
    """The file or folder to write; None names it after the run, in the working directory."""
    overwrite: bool = False
    """Replace what is at `out`."""
    data: Location | None = None
    """Labeled images to compare on; None takes those of the run."""
    pictures: int | None = None
    """How many of them; None takes 64, and 400 with `int8`, whose accuracy is measured on them."""
    with_preprocessing: bool = False
    """Take pixels, uint8 [B, H, W, C], and normalize them within the network."""
    int8: bool = False
    """Weights and activations in 8 bits."""
    workers: int | None = None
    """Decoding processes; None takes one a core."""

    def __post_init__(self) -> None:
        one_of("--format", self.form, tuple(SUFFIXES))
        at_least("--pictures", self.pictures, 1)
        at_least("--workers", self.workers, 1)
        if self.with_preprocessing and self.form == "timm":
            raise UsageError("--with-preprocessing has no effect with --format timm: timm has transforms of its own.")
        if self.int8 and self.form != "onnx":
            raise UsageError(f"--int8 is for --format onnx, not {self.form}: ONNX Runtime quantizes. Leave it out.")
        suffix = SUFFIXES[self.form]
        if self.out is not None and self.form != "timm" and self.out.suffix.lower() != suffix:
            raise UsageError(f"--out {self.out}: expected a name ending in {suffix}.")

    def suffix(self) -> str:
        """What the export's name has behind the run's."""
        return ("-int8" if self.int8 else "") + SUFFIXES[self.form]

    def image_count(self) -> int:
        """Images to compare on."""
        return self.pictures or (400 if self.int8 else 64)

    def worker_count(self) -> int:
        """Decoding processes to start."""
        return cores() if self.workers is None else self.workers
