"""What each command can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlcli.errors import UsageError
from tlcli.settings.augmentation import PRESETS, Augmentation
from tlcli.settings.machines import ClusterSettings, Shard, check_spread
from tlcli.settings.shared import (
    FITS,
    SPLITS,
    TRACKERS,
    CacheSettings,
    ComputeSettings,
    NetworkSettings,
    TrainingSettings,
    at_least,
    intensity_range,
    one_of,
)
from tlcli.storage.urls import Location


def _check_views(freeze: str, views: int | None, augmentation: Augmentation | None) -> None:
    augments = augmentation is not None and augmentation.enabled
    if views is not None and freeze == "none":
        raise UsageError("--views has no effect with --freeze none: without a frozen part there is nothing to cache.")
    by_itself = freeze == "auto" and augmentation is None  # it augments where nobody said otherwise
    if views is not None and not augments and not by_itself:
        raise UsageError("--views has no effect without augmentation. Add --augment light, say, or leave it out.")
    if freeze == "all" and augments and views is None:
        raise UsageError(
            "with --freeze all, augmentation needs --views K: the head is fitted on K cached views of each image."
        )


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """Everything `finetune` can be told."""

    data: Location
    """The folder, table or tars of labeled images."""
    out: Location | None = None
    """The run's directory; None takes `runs/<name of data>`, numbered where that exists."""
    group_by: str | None = None
    """Regular expression; images whose paths give the same capture stay on one side of a split."""
    validation_fraction: float | None = None
    """Share of the images to hold out, in (0, 1); None uses five folds where DATA brings no validation."""
    balance: bool = False
    """Weigh each class by its inverse frequency."""
    overwrite: bool = False
    """Replace the run at `out`."""
    resume: bool = False
    """Go on with the run at `out`; done already is success."""
    augmentation: Augmentation | None = None
    """How images are distorted in training; None is what `default_augmentation` says."""
    track: tuple[str, ...] = ()
    """Trackers to report to: `tensorboard`, `mlflow`, `wandb`."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)

    def __post_init__(self) -> None:
        fraction = self.validation_fraction
        freeze = self.network.freeze
        if self.training.views is not None and not self.cache.enabled and freeze != "all":
            raise UsageError("--views has no effect with --no-cache: views are for the cache. Leave one of them out.")
        _check_views(freeze, self.training.views, self.augmentation)
        for option, value in self.training.of_tails().items():
            if freeze == "all" and value is not None:
                raise UsageError(
                    f"{option} has no effect with --freeze all: the softmax head is fitted to its optimum. Leave it "
                    "out, or train later layers too, with --freeze auto."
                )
        if freeze == "none" and self.compute.engine == "onnx":
            raise UsageError("--engine onnx has no effect with --freeze none: it runs the frozen part. Leave it out.")
        if freeze != "all" and self.compute.batch_size == 1:
            raise UsageError("--batch-size is 1; layers are trained on batches of at least 2 images.")
        if fraction is not None and not 0 < fraction < 1:
            raise UsageError(f"--validation-fraction is {fraction}; expected more than 0 and less than 1.")
        if self.overwrite and self.resume:
            raise UsageError("--overwrite and --resume exclude each other: start again, or go on?")
        if self.out is None and (self.overwrite or self.resume):
            flag = "--overwrite" if self.overwrite else "--resume"
            raise UsageError(f"{flag} needs --out RUN: without it every run gets a new directory.")
        for tracker in self.track:
            one_of("--track", tracker, TRACKERS)
            if self.track.count(tracker) > 1:
                raise UsageError(f"--track {tracker} is given twice. Leave one of them out.")


@dataclass(frozen=True, kw_only=True)
class CacheFeaturesSettings:
    """Everything `cache-features` can be told."""

    data: Location
    """The folder, table or tars of labeled images."""
    export: Location | None = None
    """Also write path, label, split, digest and feature to this Parquet file."""
    overwrite: bool = False
    """Replace the file at `export`."""
    augmentation: Augmentation | None = None
    """How the views above 0 are distorted."""
    views: int | None = None
    """Augmented views of each training image to compute, beside the plain one."""
    shard: Shard | None = None
    """Only this part of the images, while other processes compute the others; None is all."""
    cluster: ClusterSettings | None = None
    """Have the features computed there; None computes here."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)

    def __post_init__(self) -> None:
        if self.network.freeze in {"none", "auto"}:
            raise UsageError(
                f"--freeze is {self.network.freeze!r}; expected all, or a layer's number or name: what is cached is "
                "what one frozen part gives."
            )
        at_least("--views", self.views, 1)
        check_spread(self.shard, self.cluster, self.compute.device)
        _check_views(self.network.freeze, self.views, self.augmentation)
        if self.views is None and self.augmentation is not None and self.augmentation.enabled:
            raise UsageError("augmentation has no effect on a cache without --views K: only augmented views differ.")
        if self.overwrite and self.export is None:
            raise UsageError("--overwrite has no effect without --export FILE: the cache itself only grows.")
        if self.export is not None and self.export.suffix.lower() != ".parquet":
            raise UsageError(f"--export {self.export}: expected a name ending in .parquet.")


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """Everything `check` can be told."""

    data: Location
    """The folder, table or tars of labeled images."""
    out: Location | None = None
    """Also write the findings to this CSV file."""
    overwrite: bool = False
    """Replace the file at `out`."""
    group_by: str | None = None
    """Regular expression; images whose paths give the same capture don't vouch for each other's labels."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)

    def __post_init__(self) -> None:
        if self.network.freeze != "all":
            raise UsageError(f"--freeze is {self.network.freeze!r}; images are checked by what comes before the head.")
        if self.overwrite and self.out is None:
            raise UsageError("--overwrite has no effect without --out FILE.csv: nothing else is written.")
        if self.out is not None and self.out.suffix.lower() != ".csv":
            raise UsageError(f"--out {self.out}: expected a name ending in .csv.")


EXPLAINED = 50
"""Images that `predict` explains where nobody said how many."""


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """Everything `predict` can be told."""

    run: Location
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
    shard: Shard | None = None
    """Only this part of the images; None is all."""
    cluster: ClusterSettings | None = None
    """Have the images predicted there, with `out` a folder for parts; None predicts here."""
    explain: Location | None = None
    """A folder for images that show what speaks for the label; None explains nothing."""
    explain_limit: int | None = None
    """Images to explain at most, the first ones; None is `EXPLAINED`."""
    compute: ComputeSettings = field(default_factory=ComputeSettings)

    def __post_init__(self) -> None:
        at_least("--top", self.top, 1)
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise UsageError(f"--min-confidence is {self.min_confidence}; expected 0 to 1.")
        if not self.inputs:
            raise UsageError("no INPUT: give files, folders, @list.txt, or - for a list on standard input.")
        if self.overwrite and self.resume:
            raise UsageError("--overwrite and --resume exclude each other: start again, or go on?")
        if self.out in {None, "-"}:
            if self.resume:
                raise UsageError("--resume has no effect without --out FILE.")
            if self.overwrite and self.explain is None:
                raise UsageError("--overwrite has no effect without --out FILE.")
        at_least("--explain-limit", self.explain_limit, 1)
        if self.explain_limit is not None and self.explain is None:
            raise UsageError("--explain-limit has no effect without --explain DIR.")
        check_spread(self.shard, self.cluster, self.compute.device)
        if self.cluster is not None and self.out in {None, "-"}:
            raise UsageError("--cluster needs --out DIR, a folder for the parts.")
        if self.cluster is not None and self.explain is not None:
            raise UsageError("--explain has no effect with --cluster. Explain some images by themselves.")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Everything `evaluate` can be told."""

    run: Location
    """The run's directory."""
    data: Location
    """The folder, table or tars of labeled images."""
    split: str | None = None
    """`train`, `validation`, `test` or `all`; None chooses (see `commands.evaluate`)."""
    compute: ComputeSettings = field(default_factory=ComputeSettings)

    def __post_init__(self) -> None:
        if self.split is not None:
            one_of("--split", self.split, (*SPLITS, "all"))


@dataclass(frozen=True, kw_only=True)
class InspectSettings:
    """Everything `inspect` can be told."""

    network: str
    """A run's directory, or a backbone's name."""
    data: Location
    """The folder, table or tars of labeled images."""
    layers: tuple[str, ...] = ()
    """Numbers or names of layers; empty takes five, spread from first to last."""
    units: int = 9
    """Units of each layer to show, the most selective ones."""
    out: Location | None = None
    """The folder to write; None takes `inspect/<name of network>`."""
    overwrite: bool = False
    """Replace what an earlier `inspect` wrote to `out`."""
    weights: str | None = None
    """Of a backbone: `pretrained`, `none` or a file; None is `pretrained`, and with a run its own."""
    size: int | None = None
    """Side of a backbone's square input in pixels; None takes its own."""
    fit: str | None = None
    """How an image becomes square, with a backbone; None is `crop`, and with a run its own."""
    intensity: str | None = None
    """What becomes black and white of gray with more than 8 bits, with a backbone: `LO,HI`, or `auto` to measure it on
    train; None takes 0 to 65535, and with a run its own."""
    compute: ComputeSettings = field(default_factory=ComputeSettings)

    def __post_init__(self) -> None:
        at_least("--units", self.units, 1)
        at_least("--size", self.size, 8)
        intensity_range(self.intensity)
        if self.fit is not None:
            one_of("--fit", self.fit, FITS)


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """Everything `augment` can be told."""

    data: Location
    """The folder, table or tars of labeled images."""
    out: Location | None = None
    """Folder of the new data set; None only draws the preview."""
    copies: int = 1
    """Distorted copies of each training image."""
    augmentation: Augmentation = PRESETS["light"]
    """How far copies may differ from their originals."""
    intensity: str | None = None
    """What becomes black and white in copies of gray with more than 8 bits: `LO,HI`; None takes 0 to 65535."""
    seed: int = 0
    """Seed of the distortions, of the split where DATA brings no validation images, and of the preview's choice."""
    preview: Location | None = None
    """A PNG file that shows some originals with their first views."""
    resume: bool = False
    """Go on with what is in `out`; done already is success."""
    overwrite: bool = False
    """Replace the file at `preview`."""
    compute: ComputeSettings = field(default_factory=ComputeSettings)

    def __post_init__(self) -> None:
        at_least("--copies", self.copies, 1)
        if self.intensity == "auto":
            raise UsageError("--intensity is auto; augment takes LO,HI only, which training then needs as well.")
        intensity_range(self.intensity)
        if self.out is None and self.preview is None:
            raise UsageError("nothing to write: give --out DIR for a new data set, or --preview FILE.png for a look.")
        if not self.augmentation.enabled:
            raise UsageError(
                "these options distort nothing, so every copy would be its original. Give --augment light or strong, "
                "or single amounts such as --rotate 10."
            )
        if self.resume and self.out is None:
            raise UsageError("--resume has no effect without --out DIR.")
        if self.overwrite and self.preview is None:
            raise UsageError("--overwrite has no effect without --preview FILE.png: a data set is never replaced.")
        if self.preview is not None and self.preview.suffix.lower() != ".png":
            raise UsageError(f"--preview {self.preview}: expected a name ending in .png.")
