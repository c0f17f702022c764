"""Settings of `finetune`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from tlcli.errors import UsageError
from tlcli.settings.augmentation import FINETUNE_AUGMENTATION_OPTIONS, Augmentation, check_views
from tlcli.settings.cache import CacheSettings
from tlcli.settings.checks import one_of
from tlcli.settings.class_values import ClassValues, parse_class_values
from tlcli.settings.columns import COLUMN_OPTIONS, TableColumns
from tlcli.settings.common_options import AUTO, CORRECTIONS_OPTION, DATA_ARGUMENT, OVERWRITE_OPTION, RESUME_OPTION
from tlcli.settings.compute import ComputeSettings
from tlcli.settings.durations import duration_seconds
from tlcli.settings.filters import FILTER_OPTIONS, PathPatterns
from tlcli.settings.grouping import GROUP_BY_OPTION
from tlcli.settings.network import DEFAULT_FIT, NetworkSettings, parse_side
from tlcli.settings.options import NETWORK, OUTPUT, TRAINING, Option, OptionGroup
from tlcli.settings.training import TrainingSettings
from tlcli.storage.urls import Location, parse_location

TRACKERS = ("tensorboard", "mlflow", "wandb")
AUTO_BACKBONE_OPTION = Option(
    help="A timm model name, torchvision/alexnet, lenet5, or a run to continue from; auto compares the networks whose "
    "weights are on this machine.",
    metavar="NAME|RUN|auto",
    panel=NETWORK,
)
AUTO_SIZE_OPTION = Option(
    help="Side of the network's square input. Larger inputs show finer detail and take longer; auto compares some.",
    metavar="PIXELS|auto",
    panel=NETWORK,
    unset="the backbone's own",
    parse=parse_side,
)
AUTO_FIT_OPTION = Option(
    help="How to make an image square: crop its center, pad it, or squash it; auto compares them.",
    metavar="crop|pad|squash|auto",
    panel=NETWORK,
    unset="crop; with --freeze auto, auto",
)


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """Settings of `finetune`."""

    data: Location = field(metadata=DATA_ARGUMENT)
    out: Location | None = field(
        default=None,
        metadata=Option(
            help="Directory of the run.",
            metavar="RUN",
            panel=OUTPUT,
            unset="runs/NAME-OF-DATA",
            parse=parse_location,
        ),
    )
    filters: PathPatterns = field(default_factory=PathPatterns, metadata=FILTER_OPTIONS)
    corrections: Location | None = field(default=None, metadata=CORRECTIONS_OPTION)
    unlabeled: str | None = field(
        default=None,
        metadata=Option(
            help="Images without labels to learn from as well: a folder, table, tar, @list, or URL. Helps with few "
            "labels.",
            metavar="SOURCE",
            panel=TRAINING,
        ),
    )
    balance: bool = field(
        default=False, metadata=Option(help="Weight each class by its inverse frequency.", panel=TRAINING)
    )
    class_weight: tuple[str, ...] = field(
        default=(),
        metadata=Option(
            help="Multiply the weight of a class by W, so that it is predicted more or less often; may be repeated.",
            metavar="CLASS=W",
            panel=TRAINING,
        ),
    )
    rename: tuple[str, ...] = field(
        default=(),
        metadata=Option(
            help="With --backbone RUN: class OLD of the run is class NEW of DATA; may be repeated.",
            metavar="OLD=NEW",
            panel=TRAINING,
        ),
    )
    validation_fraction: float | None = field(
        default=None,
        metadata=Option(
            help="Fraction of the images to hold out for validation.",
            metavar="F",
            panel=TRAINING,
            unset="cross-validation, unless DATA has a validation split",
        ),
    )
    refit: bool = field(
        default=False,
        metadata=Option(
            help="Train on the validation images as well in the end, after the evaluation on them.", panel=TRAINING
        ),
    )
    group_by: str | None = field(default=None, metadata=Option(**GROUP_BY_OPTION, panel=TRAINING))
    budget: str | None = field(
        default=None,
        metadata=Option(
            help="Time for the whole run, such as 90s, 10m, or 1.5h. Layers are trained as long as it lasts.",
            metavar="DURATION",
            panel=TRAINING,
            unset="as long as the training takes",
        ),
    )
    training: TrainingSettings = field(
        default_factory=TrainingSettings, metadata=OptionGroup(settings=TrainingSettings)
    )
    augmentation: Augmentation | Literal["auto"] | None = field(default=None, metadata=FINETUNE_AUGMENTATION_OPTIONS)
    """Augmentation of the training images; None uses `default_augmentation`."""
    network: NetworkSettings = field(
        default_factory=NetworkSettings,
        metadata=OptionGroup(
            settings=NetworkSettings,
            instead={"backbone": AUTO_BACKBONE_OPTION, "size": AUTO_SIZE_OPTION, "fit": AUTO_FIT_OPTION},
        ),
    )
    columns: TableColumns = field(default_factory=TableColumns, metadata=COLUMN_OPTIONS)
    compute: ComputeSettings = field(default_factory=ComputeSettings, metadata=OptionGroup(settings=ComputeSettings))
    cache: CacheSettings = field(default_factory=CacheSettings, metadata=OptionGroup(settings=CacheSettings))
    track: tuple[str, ...] = field(
        default=(),
        metadata=Option(
            help="Also log to this experiment tracker, through its own client. Repeatable.",
            metavar="tensorboard|mlflow|wandb",
            panel=OUTPUT,
        ),
    )
    resume: bool = field(default=False, metadata=RESUME_OPTION)
    overwrite: bool = field(default=False, metadata=OVERWRITE_OPTION)

    @property
    def wanted_fit(self) -> str:
        """The value of `--fit`, or its default."""
        network = self.network
        implied = network.fit is None and network.freeze == "auto" and network.pretrained
        return AUTO if implied else network.fit or DEFAULT_FIT

    @property
    def budget_seconds(self) -> float | None:
        """The value of `budget`."""
        return None if self.budget is None else duration_seconds("--budget", self.budget)

    @property
    def class_weights(self) -> ClassValues:
        """The values of `class_weight`."""
        return parse_class_values("--class-weight", self.class_weight, expected="a weight such as 3")

    def __post_init__(self) -> None:
        weights = self.class_weights
        if weights.others is not None:
            raise UsageError(f"--class-weight {weights.others:g}: expected CLASS=W; all classes have the weight 1.")
        for name, weight in weights.classes.items():
            if not 0 < weight < math.inf:
                raise UsageError(f"--class-weight {name}={weight:g}: expected a weight above 0, such as 3.")
        fraction = self.validation_fraction
        freeze = self.network.freeze
        if self.training.views is not None and not self.cache.enabled and freeze != "all":
            raise UsageError("--views has no effect with --no-cache: views are cached. Remove one of them.")
        check_views(freeze, self.training.views, self.augmentation)
        if freeze == "all":
            check_head_options(self)
        _check_choices(self)
        _check_budget(self.budget)
        _check_unlabeled(self.unlabeled, freeze)
        _check_engine(self.compute, freeze)
        if freeze != "all" and self.compute.batch_size == 1:
            raise UsageError("--batch-size is 1; expected at least 2 images per batch to train layers.")
        if fraction is not None and not 0 < fraction < 1:
            raise UsageError(f"--validation-fraction is {fraction}; expected more than 0 and less than 1.")
        if self.overwrite and self.resume:
            raise UsageError("--overwrite and --resume cannot be combined: use --overwrite to start over, or --resume.")
        if self.out is None and (self.overwrite or self.resume):
            flag = "--overwrite" if self.overwrite else "--resume"
            raise UsageError(f"{flag} needs --out RUN: without it, each run gets a new directory.")
        for tracker in self.track:
            one_of("--track", tracker, TRACKERS)
            if self.track.count(tracker) > 1:
                raise UsageError(f"--track {tracker} is given twice. Remove one of them.")


def _check_engine(compute: ComputeSettings, freeze: str) -> None:
    engine = compute.engine
    if freeze == "none" and engine in {"onnx", "openvino"}:
        raise UsageError(f"--engine {engine} has no effect with --freeze none: it runs the frozen layers. Remove it.")
    if freeze != "all" and engine == "openvino" and compute.precision == "bf16":
        raise UsageError(
            f"--freeze {freeze} cannot be combined with --engine openvino --precision bf16. Use --precision fp32, or "
            "--freeze all."
        )


def _check_choices(settings: FinetuneSettings) -> None:
    """Check that what `auto` is to choose can be measured."""
    network = settings.network
    for option, value in (
        ("--backbone", network.backbone),
        ("--size", network.size),
        ("--fit", network.fit),
        ("--augment", settings.augmentation),
    ):
        if value == AUTO and not network.pretrained:
            raise UsageError(
                f"{option} auto cannot be combined with --weights none: it compares features of pretrained layers. "
                f"Give {option} a value."
            )
    if network.backbone != AUTO:
        return
    if network.weights != "pretrained":
        raise UsageError(
            f"--backbone auto cannot be combined with --weights {network.weights}, the weights of one network. Remove "
            "one of them."
        )
    if network.freeze not in {"all", "none", "auto"}:
        raise UsageError(
            f"--backbone auto cannot be combined with --freeze {network.freeze}, a layer of one network. Use --freeze "
            "all, none, or auto."
        )


def _check_budget(budget: str | None) -> None:
    if budget is not None:
        duration_seconds("--budget", budget)


def _check_unlabeled(source: str | None, freeze: str) -> None:
    if source is not None and freeze != "all":
        raise UsageError(
            f"--unlabeled has no effect with --freeze {freeze}: only --freeze all learns from unlabeled images. Remove "
            "one of them."
        )
    if source == "-":
        raise UsageError(
            "--unlabeled is -; expected a folder, table, tar, @list, or URL, because images are read twice."
        )


def check_head_options(settings: FinetuneSettings) -> None:
    """Check that no option needs layers before the head to train, for settings with which none are trained.

    These have `--freeze all`, or the number or name of the last layer, which is known once the network is loaded.

    Raises:
        UsageError: an option has no effect, or an augmentation needs views.
    """
    check_views("all", settings.training.views, settings.augmentation)
    for option, value in settings.training.tail_options().items():
        if value is not None:
            raise UsageError(
                f"{option} has no effect with --freeze all: the softmax head is fitted to its optimum. Remove it, "
                "or train layers before the head as well, with --freeze auto."
            )
