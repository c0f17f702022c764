"""Settings of `augment`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlcli.errors import UsageError
from tlcli.settings.augmentation import AUGMENTATION_OPTIONS, PRESETS, Augmentation
from tlcli.settings.checks import at_least
from tlcli.settings.columns import COLUMN_OPTIONS, TableColumns
from tlcli.settings.common_options import CORRECTIONS_OPTION, DATA_ARGUMENT, RESUME_OPTION
from tlcli.settings.compute import ComputeSettings
from tlcli.settings.filters import FILTER_OPTIONS, PathPatterns
from tlcli.settings.grouping import GROUP_BY_OPTION
from tlcli.settings.network import intensity_range
from tlcli.settings.options import AUGMENTATION, OUTPUT, Option, OptionGroup
from tlcli.storage.urls import Location, parse_location

UNUSED_FIELDS = ("device", "precision", "engine", "batch_size")
"""Fields of the compute settings without an option: a network runs only to find similar images."""


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """Settings of `augment`."""

    data: Location = field(metadata=DATA_ARGUMENT)
    out: Location | None = field(
        default=None,
        metadata=Option(help="Folder of the new dataset.", metavar="DIR", panel=OUTPUT, parse=parse_location),
    )
    filters: PathPatterns = field(default_factory=PathPatterns, metadata=FILTER_OPTIONS)
    corrections: Location | None = field(default=None, metadata=CORRECTIONS_OPTION)
    group_by: str | None = field(default=None, metadata=GROUP_BY_OPTION)
    copies: int = field(
        default=1,
        metadata=Option(help="Augmented copies of each training image.", metavar="K", panel=AUGMENTATION),
    )
    augmentation: Augmentation = field(default=PRESETS["light"], metadata=AUGMENTATION_OPTIONS)
    """How much copies may differ from their originals."""
    intensity: str | None = field(
        default=None,
        metadata=Option(
            help="Pixel values that become black and white in copies of grayscale images with more than 8 bits.",
            metavar="LO,HI",
            panel=AUGMENTATION,
            unset="0,65535",
        ),
    )
    seed: int = field(
        default=0,
        metadata=Option(
            help="Seed for the augmentation, the split, and the choice of images in the preview.", panel=AUGMENTATION
        ),
    )
    columns: TableColumns = field(default_factory=TableColumns, metadata=COLUMN_OPTIONS)
    compute: ComputeSettings = field(
        default_factory=ComputeSettings,
        metadata=OptionGroup(settings=ComputeSettings, without=UNUSED_FIELDS),
    )
    preview: Location | None = field(
        default=None,
        metadata=Option(
            help="Draw some originals and their augmented copies on one sheet; does not require --out.",
            metavar="FILE.png",
            panel=OUTPUT,
            parse=parse_location,
        ),
    )
    resume: bool = field(default=False, metadata=RESUME_OPTION)
    overwrite: bool = field(default=False, metadata=Option(help="Replace an existing preview.", panel=OUTPUT))

    def __post_init__(self) -> None:
        at_least("--copies", self.copies, 1)
        if self.intensity == "auto":
            raise UsageError("--intensity is auto; augment needs LO,HI, such as 0,4095. Give finetune the same range.")
        intensity_range(self.intensity)
        if self.out is None and self.preview is None:
            raise UsageError("no output: give --out DIR for a new dataset, or --preview FILE.png for a sample sheet.")
        if not self.augmentation.enabled:
            raise UsageError(
                "these augmentation options leave images unchanged. Give --augment light or strong, or an amount such "
                "as --rotate 10."
            )
        for flag, given in (("--resume", self.resume), ("--group-by", self.group_by is not None)):
            if given and self.out is None:
                raise UsageError(f"{flag} has no effect without --out DIR.")
        if self.overwrite and self.preview is None:
            raise UsageError("--overwrite has no effect without --preview FILE.png: a dataset is never replaced.")
        if self.preview is not None and self.preview.suffix.lower() != ".png":
            raise UsageError(f"--preview is {self.preview}; expected a name ending in .png.")
