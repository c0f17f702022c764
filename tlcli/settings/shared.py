"""What commands share: the network, the training of layers, the hardware, the cache."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from tlcli.errors import UsageError
from tlcli.processes import cores
from tlcli.storage.urls import default_cache

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
FITS = ("crop", "pad", "squash")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
ENGINES = ("auto", "torch", "onnx")
SPLITS = ("train", "validation", "test")
TRACKERS = ("tensorboard", "mlflow", "wandb")


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise UsageError unless `value` is allowed."""
    if value not in allowed:
        raise UsageError(f"{option} is {value!r}; expected one of {', '.join(allowed)}.")


def at_least(option: str, value: int | None, least: int) -> None:
    """Raise UsageError where `value` is given and too small."""
    if value is not None and value < least:
        raise UsageError(f"{option} is {value}; expected at least {least}.")


def intensity_range(text: str | None) -> tuple[float, float] | None:
    """The range that `--intensity` gives; None where it gives none, or is to be measured.

    Raises:
        UsageError: it is no range.
    """
    if text is None or text == "auto":
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise UsageError(f"--intensity is {text!r}; expected LO,HI with LO below HI, such as 0,4095, or auto.")
    return low, high


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Which network, and how images enter it."""

    backbone: str = DEFAULT_BACKBONE
    """A timm name, `torchvision/alexnet`, or `lenet5`."""
    weights: str = "pretrained"
    """`pretrained`, `none` (random, from `seed`), or a .safetensors or .pth file."""
    freeze: str = "all"
    """How much to freeze: `all` before the head, `none`, a layer's number or its name, or `auto` to try several."""
    size: int | None = None
    """Side of the network's square input in pixels; None takes the backbone's own."""
    fit: str = "crop"
    """How an image becomes square: `crop` its center, `pad` it, or `squash` it."""
    intensity: str | None = None
    """What becomes black and white of gray with more than 8 bits: `LO,HI`, or `auto` to measure it on train; None takes
    0 to 65535."""
    seed: int = 0
    """Seed of everything random: random weights, the split, views, and the order of training."""

    def __post_init__(self) -> None:
        one_of("--fit", self.fit, FITS)
        at_least("--size", self.size, 8)
        intensity_range(self.intensity)
        if not self.freeze:
            raise UsageError("--freeze is empty; expected all, none, auto, or a layer's number or name.")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed is {self.seed}; expected 0 to {2**32 - 1}.")


@dataclass(frozen=True, kw_only=True)
class ComputeSettings:
    """Where and how the network runs."""

    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:N` or `mps`."""
    precision: str = "auto"
    """`auto` is fp32 for features on a CPU, fp16 on CUDA, and 16 bits for training where the hardware is fast at it."""
    engine: str = "auto"
    """What runs the frozen network: `torch`, `onnx` (ONNX Runtime, on a CPU), or `auto`, which takes what is faster."""
    batch_size: int | None = None
    """Images a forward pass; None picks by device."""
    workers: int | None = None
    """Decoding processes; None takes one a core."""

    def __post_init__(self) -> None:
        one_of("--precision", self.precision, PRECISIONS)
        one_of("--engine", self.engine, ENGINES)
        at_least("--batch-size", self.batch_size, 1)
        at_least("--workers", self.workers, 1)
        kind, _, number = self.device.partition(":")
        if kind not in {"auto", "cpu", "cuda", "mps"} or (number and not (kind == "cuda" and number.isdigit())):
            raise UsageError(f"--device is {self.device!r}; expected auto, cpu, cuda, cuda:1 or mps.")

    def worker_count(self) -> int:
        """Decoding processes to start: what was asked for, else one for each core we may use."""
        return cores() if self.workers is None else self.workers


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """Where features are kept."""

    directory: Path | None = None
    """The cache; None takes `default_cache()`."""
    enabled: bool = True
    """False keeps features in memory and forgets them."""
    verify: bool = False
    """Read every image again, even where size and time of change are as remembered."""

    def __post_init__(self) -> None:
        for flag, given in (("--cache", self.directory is not None), ("--verify", self.verify)):
            if given and not self.enabled:
                raise UsageError(f"{flag} has no effect with --no-cache. Leave one of them out.")

    def root(self) -> Path:
        """The cache's directory."""
        return self.directory if self.directory is not None else default_cache()


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How later layers are trained; None leaves the choice to `training.recipe`."""

    epochs: int | None = None
    """Times that every image is seen; with `--freeze auto` the budget, in epochs of the whole network."""
    learning_rate: float | None = None
    """Of the head, at its peak; earlier layers learn slower."""
    weight_decay: float | None = None
    """Of weights; biases and norms have none."""
    patience: int | None = None
    """Stop after this many epochs without a better validation loss."""
    views: int | None = None
    """Augmented views of each image to cache; None makes a new one in every epoch."""

    def __post_init__(self) -> None:
        for option, value in (("--epochs", self.epochs), ("--patience", self.patience), ("--views", self.views)):
            at_least(option, value, 1)
        if self.learning_rate is not None and not 0 < self.learning_rate <= 10:
            raise UsageError(f"--learning-rate is {self.learning_rate}; expected more than 0 and at most 10.")
        if self.weight_decay is not None and not 0 <= self.weight_decay <= 10:
            raise UsageError(f"--weight-decay is {self.weight_decay}; expected 0 to 10.")

    def of_tails(self) -> dict[str, float | None]:
        """What only the training of a tail heeds, by option."""
        return {
            "--epochs": self.epochs,
            "--learning-rate": self.learning_rate,
            "--weight-decay": self.weight_decay,
            "--patience": self.patience,
        }
