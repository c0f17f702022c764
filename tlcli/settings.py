"""What the user chose: frozen dataclasses, the one place where defaults live. Torch-free.

Checks that need nothing but the values happen on construction and quote the value.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from tlcli.errors import UsageError

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
FITS = ("crop", "pad", "squash")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
ENGINES = ("auto", "torch")
SPLITS = ("train", "validation", "test")


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} is {value!r}; expected one of {', '.join(allowed)}.")


def _at_least(option: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise UsageError(f"{option} is {value}; expected at least {least}.")


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Which network, and how pictures enter it."""

    backbone: str = DEFAULT_BACKBONE
    """A timm name, `torchvision/alexnet`, or `lenet5`."""
    weights: str = "pretrained"
    """`pretrained`, `none` (random, from `seed`), or a .safetensors or .pth file."""
    freeze: str = "all"
    """How much to freeze: `all` is everything before the head."""
    size: int | None = None
    """Side of the network's square input in pixels; None takes the backbone's own."""
    fit: str = "crop"
    """How a picture becomes square: `crop` its centre, `pad` it, or `squash` it."""
    seed: int = 0
    """Seed of everything random: random weights and the split."""

    def __post_init__(self) -> None:
        _one_of("--fit", self.fit, FITS)
        _at_least("--size", self.size, 8)
        if self.freeze != "all":
            raise UsageError(
                f"--freeze is {self.freeze!r}; this version trains the softmax head on a wholly frozen "
                "backbone: expected all."
            )


@dataclass(frozen=True, kw_only=True)
class ComputeSettings:
    """Where and how the network runs."""

    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:N` or `mps`."""
    precision: str = "auto"
    """`auto` is fp32 on a CPU and fp16 autocast on CUDA."""
    engine: str = "auto"
    """What runs the frozen network; `auto` picks."""
    batch_size: int | None = None
    """Pictures a forward pass; None picks by device."""
    workers: int | None = None
    """Decoding processes; None takes one a core."""

    def __post_init__(self) -> None:
        _one_of("--precision", self.precision, PRECISIONS)
        _one_of("--engine", self.engine, ENGINES)
        _at_least("--batch-size", self.batch_size, 1)
        _at_least("--workers", self.workers, 1)
        kind, _, number = self.device.partition(":")
        if kind not in {"auto", "cpu", "cuda", "mps"} or (number and not (kind == "cuda" and number.isdigit())):
            raise UsageError(f"--device is {self.device!r}; expected auto, cpu, cuda, cuda:1 or mps.")

    def worker_count(self) -> int:
        """Decoding processes to start: what was asked for, else one for each core we may use."""
        if self.workers is not None:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """Where features are kept."""

    directory: Path | None = None
    """The cache; None takes `default_cache()`."""
    enabled: bool = True
    """False keeps features in memory and forgets them."""
    verify: bool = False
    """Read every picture again, even where size and time of change are as remembered."""

    def __post_init__(self) -> None:
        for flag, given in (("--cache", self.directory is not None), ("--verify", self.verify)):
            if given and not self.enabled:
                raise UsageError(f"{flag} has no effect with --no-cache. Leave one of them out.")

    def root(self) -> Path:
        """The cache's directory."""
        return self.directory if self.directory is not None else default_cache()


def default_cache() -> Path:
    """`$TLCLI_CACHE`, else `$XDG_CACHE_HOME/tlcli/features`, else `~/.cache/tlcli/features`."""
    if chosen := os.environ.get("TLCLI_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tlcli" / "features"


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """Everything `finetune` can be told."""

    data: Path
    """The folder or table of labelled pictures."""
    out: Path | None = None
    """The run's directory; None takes `runs/<name of data>`, numbered where that exists."""
    group_by: str | None = None
    """Regular expression; pictures whose paths give the same capture stay on one side of a split."""
    validation_fraction: float | None = None
    """Share of the pictures to hold out, in (0, 1); None uses five folds where DATA brings no validation."""
    balance: bool = False
    """Weigh each class by its inverse frequency."""
    overwrite: bool = False
    """Replace the run at `out`."""
    resume: bool = False
    """Go on with the run at `out`; done already is success."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)

    def __post_init__(self) -> None:
        fraction = self.validation_fraction
        if fraction is not None and not 0 < fraction < 1:
            raise UsageError(f"--validation-fraction is {fraction}; expected more than 0 and less than 1.")
        if self.overwrite and self.resume:
            raise UsageError("--overwrite and --resume exclude each other: start again, or go on?")
        if self.out is None and (self.overwrite or self.resume):
            flag = "--overwrite" if self.overwrite else "--resume"
            raise UsageError(f"{flag} needs --out RUN: without it every run gets a new directory.")


@dataclass(frozen=True, kw_only=True)
class CacheFeaturesSettings:
    """Everything `cache-features` can be told."""

    data: Path
    """The folder or table of labelled pictures."""
    export: Path | None = None
    """Also write path, label, split, digest and feature to this Parquet file."""
    overwrite: bool = False
    """Replace the file at `export`."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)

    def __post_init__(self) -> None:
        if self.overwrite and self.export is None:
            raise UsageError("--overwrite has no effect without --export FILE: the cache itself only grows.")
        if self.export is not None and self.export.suffix.lower() != ".parquet":
            raise UsageError(f"--export {self.export}: expected a name ending in .parquet.")


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """Everything `predict` can be told."""

    run: Path
    """The run's directory."""
    inputs: tuple[str, ...]
    """Files, folders, `@list.txt`, or `-` for a list on standard input."""
    out: str | None = None
    """A .csv, .jsonl or .parquet file; `-` is standard output; None puts the rows into the result."""
    top: int = 1
    """Labels a row."""
    probabilities: bool = False
    """Add a column for each class."""
    min_confidence: float | None = None
    """Below this confidence, in [0, 1], a row's status is `review`."""
    overwrite: bool = False
    """Replace the file at `out`."""
    resume: bool = False
    """Go on where an interrupted prediction stopped."""
    compute: ComputeSettings = field(default_factory=ComputeSettings)

    def __post_init__(self) -> None:
        _at_least("--top", self.top, 1)
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise UsageError(f"--min-confidence is {self.min_confidence}; expected 0 to 1.")
        if not self.inputs:
            raise UsageError("no INPUT: give files, folders, @list.txt, or - for a list on standard input.")
        if self.overwrite and self.resume:
            raise UsageError("--overwrite and --resume exclude each other: start again, or go on?")
        if self.out in {None, "-"}:
            for flag, given in (("--overwrite", self.overwrite), ("--resume", self.resume)):
                if given:
                    raise UsageError(f"{flag} has no effect without --out FILE.")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Everything `evaluate` can be told."""

    run: Path
    """The run's directory."""
    data: Path
    """The folder or table of labelled pictures."""
    split: str | None = None
    """`train`, `validation`, `test` or `all`; None chooses (see `commands.evaluate`)."""
    compute: ComputeSettings = field(default_factory=ComputeSettings)

    def __post_init__(self) -> None:
        if self.split is not None:
            _one_of("--split", self.split, (*SPLITS, "all"))
